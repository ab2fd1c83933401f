"""The host name in a ClientHello, read before OpenSSL reads it.

`ssl` prints a complaint on stderr, past every log, for each name that is not ASCII: a peer's fault
that must not appear there. So a server's handshake looks at the client's first message here. OpenSSL
finds everything else that may be wrong with it.
"""

from struct import Struct

__all__ = ["LONGEST", "HelloReader", "UnreadableName"]

LONGEST = 65_536
"""Bytes of a ClientHello that are searched; real ones have some hundred to a few thousand."""

_HANDSHAKE, _CLIENT_HELLO = 22, 1
_SERVER_NAME = 0
_RECORD_HEADER = 5
_MESSAGE_HEADER = 4
_HEADERS = Struct(">BxxHBBH")  # of a record, and of a message in it
_NOTHING = bytearray()  # shared by all readers that are done


class UnreadableName(ValueError):
    """The client asks for what cannot be a host name (RFC 6066, section 3: ASCII, A-labels)."""


class HelloReader:
    """Holds input back until the ClientHello is complete, or turns out not to be one (RFC 8446, 4.1.2).

    A message may be spread over records, and these over any number of reads; each byte is looked at
    once. `name` is then the host name that is asked for, in lower case; None without one.
    """

    __slots__ = ("_held", "_message", "_start", "done", "name")

    def __init__(self) -> None:
        self.done = False
        self.name: str | None = None
        self._held = bytearray()
        self._message = bytearray()
        self._start = 0  # of the record that is not complete yet

    def feed(self, data: bytes) -> bytes:
        """Return what may be passed on now; nothing while the message is not complete.

        Errors: UnreadableName.
        """
        if self.done:
            return data
        if not self._held and _is_whole_hello(data):  # the usual case
            self._finish(data[_HEADERS.size :])
            return data
        held = self._held
        held += data
        while not self.done and self._next_record():
            self._look()
        return bytes(held) if self.done else b""

    def _next_record(self) -> bool:
        """Add the next record to the message, if it is complete."""
        held, start = self._held, self._start
        if len(held) > start and (held[start] != _HANDSHAKE or start > LONGEST):
            self._finish(b"")
        if self.done or len(held) < start + _RECORD_HEADER:
            return False
        end = start + _RECORD_HEADER + int.from_bytes(held[start + 3 : start + 5], "big")
        if len(held) < end:
            return False
        self._message += held[start + _RECORD_HEADER : end]
        self._start = end
        return True

    def _look(self) -> None:
        message = self._message
        if message and message[0] != _CLIENT_HELLO:
            self._finish(b"")
        elif len(message) >= _MESSAGE_HEADER:
            end = _MESSAGE_HEADER + int.from_bytes(message[1:4], "big")
            if len(message) >= end:
                self._finish(bytes(message[_MESSAGE_HEADER:end]))

    def _finish(self, hello: bytes) -> None:
        """Read the name in `hello`, without its header; b"" for what is not a ClientHello."""
        self.done = True
        self._held = self._message = _NOTHING
        try:
            name = server_name(hello).decode("ascii")
        except UnicodeDecodeError:
            raise UnreadableName("the client asks for a host name that is not ASCII") from None
        self.name = name.rstrip(".").lower() or None


def _is_whole_hello(data: bytes) -> bool:
    """Whether `data` is one record that holds one ClientHello."""
    if len(data) <= _HEADERS.size:
        return False
    record, size, message, high, low = _HEADERS.unpack_from(data)
    length = len(data) - _HEADERS.size
    whole = length == (high << 16 | low) == size - _MESSAGE_HEADER
    return bool(whole and record == _HANDSHAKE and message == _CLIENT_HELLO)


def server_name(hello: bytes) -> bytes:
    """The name that a ClientHello, without its header, asks for; b"" where there is none."""
    try:
        at = 35 + hello[34]  # version, random, session
        at += 2 + (hello[at] << 8 | hello[at + 1])  # cipher suites
        at += 3 + hello[at]  # compression methods; the length of all extensions
        while (hello[at] << 8 | hello[at + 1]) != _SERVER_NAME:
            at += 4 + (hello[at + 2] << 8 | hello[at + 3])
        return hello[at + 9 : at + 9 + (hello[at + 7] << 8 | hello[at + 8])]
    except IndexError:
        return b""
