"""The host name in a ClientHello, read before OpenSSL reads it.

`ssl` prints a complaint on stderr, past every log, for each name that is not ASCII: a peer's fault
that must not appear there. So a server's handshake looks at the client's first message here. OpenSSL
finds everything else that may be wrong with it.
"""

from struct import Struct

__all__ = ["LONGEST", "ChangedName", "HelloError", "HelloReader", "UnreadableName"]

LONGEST = 8_192
"""Bytes of a ClientHello, with the headers of its records. Real ones have some hundred to a few
thousand. A longer one is refused, so that a client that never completes it costs little memory."""

_OPENSSL_REFUSES = 131_396
"""A longer ClientHello is refused by OpenSSL, before it has come (CLIENT_HELLO_MAX_LENGTH)."""

_MOST_SKIPPED = 32
"""Records of change_cipher_spec before a second ClientHello; OpenSSL takes as many."""

_CHANGE_CIPHER_SPEC, _HANDSHAKE = 20, 22
_CLIENT_HELLO = 1
_SERVER_NAME = 0
_RECORD_HEADER = 5
_MESSAGE_HEADER = 4
_HEADERS = Struct(">BxxHBBH")  # of a record, and of a message in it
_NOTHING = bytearray()  # shared by all readers that are done

_ILLEGAL_PARAMETER, _DECODE_ERROR, _UNRECOGNIZED_NAME = 47, 50, 112


class HelloError(ValueError):
    """The ClientHello is refused. `alert` is the description to send (RFC 8446, section 6)."""

    alert = _DECODE_ERROR


class UnreadableName(HelloError):
    """The client asks for what cannot be a host name (RFC 6066, section 3: ASCII, A-labels)."""

    alert = _UNRECOGNIZED_NAME


class ChangedName(HelloError):
    """The second ClientHello asks for another host name than the first (RFC 8446, section 4.1.2)."""

    alert = _ILLEGAL_PARAMETER


class HelloReader:
    """Holds input back until the ClientHello is complete, or turns out not to be one (RFC 8446, 4.1.2).

    A message may be spread over records, and these over any number of reads. `name` is then the host
    name that is asked for, in lower case; None without one. After a HelloRetryRequest the client sends
    a second ClientHello, which must ask for the same name: releases of OpenSSL differ in which of two
    names selects the certificate.

    `done`: the first one was read, or none comes.
    """

    __slots__ = (
        "_begin",
        "_held",
        "_hellos",
        "_length",
        "_over",
        "_skipped",
        "_start",
        "done",
        "name",
    )

    def __init__(self) -> None:
        self.done = self._over = False
        self.name: str | None = None
        self._hellos = 0
        self._skipped = 0
        self._expect_message()

    def _expect_message(self) -> None:
        self._held = bytearray()
        self._start = 0  # of the record that is not complete yet
        self._begin = b""  # the first bytes of the message: its header
        self._length = 0  # of what has come of the message

    def feed(self, data: bytes) -> bytes:
        """Return what may be passed on now; nothing while the message is not complete.

        Errors: HelloError.
        """
        if self._over:
            return data
        if not self._held and _is_whole_hello(data):  # the usual case
            self._finish(data[_HEADERS.size :])
            return data
        self._held += data
        passed = bytearray()
        while self._next_record():
            if self._is_complete():
                held, end = self._held, self._start
                passed += held[:end]
                self._expect_message()
                self._held = held[end:]
        return bytes(passed + self._rest())

    def _rest(self) -> bytearray:
        """What is not held back any longer."""
        if self._over:
            self.done = True
            rest, self._held = self._held, _NOTHING
            return rest
        if len(self._held) > LONGEST:
            raise HelloError(f"the ClientHello has more than {LONGEST} bytes")
        return _NOTHING

    def _next_record(self) -> bool:
        """Add the next record to the message, if it is complete."""
        held, start = self._held, self._start
        if len(held) > start and held[start] != _HANDSHAKE and not self._may_skip():
            self._over = True
        body = start + _RECORD_HEADER
        if self._over or len(held) < body:
            return False
        end = body + int.from_bytes(held[start + 3 : body], "big")
        if not self._begin and len(held) > body < end and held[body] != _CLIENT_HELLO:
            self._over = not self._may_skip()  # known before the record, a long one, is complete
        if self._over or len(held) < end:
            return False
        self._start = end
        if held[start] == _HANDSHAKE:
            self._begin += held[body : min(end, body + _MESSAGE_HEADER - len(self._begin))]
            self._length += end - body
        return True

    def _may_skip(self) -> bool:
        """Whether a record of change_cipher_spec comes where a second ClientHello may follow."""
        return self._hellos == 1 and self._start == 0 and self._held[0] == _CHANGE_CIPHER_SPEC

    def _is_complete(self) -> bool:
        """Whether what ends at `_start` may be passed on; a whole ClientHello is read before."""
        if self._held[0] != _HANDSHAKE:
            self._skipped += 1
            self._over = self._skipped > _MOST_SKIPPED
            return True
        if len(self._begin) < _MESSAGE_HEADER:
            return False
        size = _MESSAGE_HEADER + int.from_bytes(self._begin[1:], "big")
        if self._length >= size:
            self._finish(self._message()[_MESSAGE_HEADER:size])
            return True
        if size > LONGEST:
            self._refuse_long(size)
        return False

    def _refuse_long(self, size: int) -> None:
        if size <= _OPENSSL_REFUSES:
            raise HelloError(f"the ClientHello has {size} bytes, more than {LONGEST}")
        self._over = True

    def _message(self) -> bytes:
        """The bodies of the records before `_start`."""
        held, at = self._held, 0
        message = bytearray()
        while at < self._start:
            body = at + _RECORD_HEADER
            at = body + int.from_bytes(held[at + 3 : body], "big")
            message += held[body:at]
        return bytes(message)

    def _finish(self, hello: bytes) -> None:
        """Read the name in `hello`, without its header."""
        self._hellos += 1
        self.done = True
        self._over = self._hellos == 2
        try:
            text = server_name(hello).decode("ascii")
        except UnicodeDecodeError:
            raise UnreadableName("the client asks for a host name that is not ASCII") from None
        name = text.rstrip(".").lower() or None
        if self._over and name != self.name:
            raise ChangedName("the client asks for another host name after a HelloRetryRequest")
        self.name = name


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
