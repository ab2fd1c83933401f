"""The host name in a ClientHello, read before OpenSSL reads it.

`ssl` prints a complaint on stderr, past every log, for each name that is not ASCII: a peer's fault that
must not be heard there. So a server's handshake looks at the first flight here. Everything else
that may be wrong with it is for OpenSSL to find.
"""

from struct import Struct

__all__ = ["LONGEST", "HelloReader", "UnreadableName"]

LONGEST = 65_536
"""Bytes of a ClientHello that are looked through; real ones have some hundred to a few thousand."""

_HANDSHAKE, _CLIENT_HELLO = 22, 1
_SERVER_NAME = 0
_RECORD_HEAD = 5
_MESSAGE_HEAD = 4
_HEADS = Struct(">BxxHBBH")  # of a record, and of a message in it


class UnreadableName(ValueError):
    """The client asks for a host name that is none (RFC 6066, section 3: ASCII, A-labels)."""


class HelloReader:
    """Holds back what comes until the ClientHello is whole, or is seen to be none (RFC 8446, 4.1.2).

    A message may be spread over records, and these over any number of reads; each byte is looked at
    once. `name` is then the host name that is asked for, in lower case; None without one.
    """

    __slots__ = ("_held", "_message", "_start", "done", "name")

    def __init__(self) -> None:
        self.done = False
        self.name: str | None = None
        self._held = bytearray()
        self._message = bytearray()
        self._start = 0  # of the record that is not whole yet

    def feed(self, data: bytes) -> bytes:
        """What may be passed on now; nothing while there is more to wait for.

        Errors: UnreadableName.
        """
        if not self._held and len(data) > _HEADS.size:
            kind, size, message, high, low = _HEADS.unpack_from(data)
            length = len(data) - _HEADS.size
            whole = length == (high << 16 | low) == size - _MESSAGE_HEAD
            if whole and kind == _HANDSHAKE and message == _CLIENT_HELLO:  # the usual case
                self._end(data[_HEADS.size :])
                return data
        self._held += data
        while not self.done and self._next_record():
            self._look()
        if not self.done:
            return b""
        passed, self._held = bytes(self._held), bytearray()
        return passed

    def _next_record(self) -> bool:
        """Add the next record to the message, if it is whole."""
        held, start = self._held, self._start
        if len(held) > start and (held[start] != _HANDSHAKE or start > LONGEST):
            self.done = True
        if self.done or len(held) < start + _RECORD_HEAD:
            return False
        end = start + _RECORD_HEAD + int.from_bytes(held[start + 3 : start + 5], "big")
        if len(held) < end:
            return False
        self._message += held[start + _RECORD_HEAD : end]
        self._start = end
        return True

    def _look(self) -> None:
        message = self._message
        if message and message[0] != _CLIENT_HELLO:
            self.done = True
        elif len(message) >= _MESSAGE_HEAD:
            end = _MESSAGE_HEAD + int.from_bytes(message[1:4], "big")
            if len(message) >= end:
                self._end(bytes(message[_MESSAGE_HEAD:end]))

    def _end(self, hello: bytes) -> None:
        self.done = True
        try:
            name = server_name(hello).decode("ascii")
        except UnicodeDecodeError:
            raise UnreadableName("the client asks for a host name that is not ASCII") from None
        self.name = name.rstrip(".").lower() or None


def server_name(hello: bytes) -> bytes:
    """The name that a ClientHello, without its head, asks for; b"" where there is none."""
    try:
        at = 35 + hello[34]  # version, random, session
        at += 2 + (hello[at] << 8 | hello[at + 1])  # cipher suites
        at += 3 + hello[at]  # compression methods; the length of all extensions
        while (hello[at] << 8 | hello[at + 1]) != _SERVER_NAME:
            at += 4 + (hello[at + 2] << 8 | hello[at + 3])
        return hello[at + 9 : at + 9 + (hello[at + 7] << 8 | hello[at + 8])]
    except IndexError:
        return b""
