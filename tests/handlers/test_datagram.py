"""``handlers.datagram``: a datagram as a file, and the reply as another."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from everserve.errors import NoReplyAddressError
from everserve.handlers.datagram import DatagramRequestHandler


class Sent:
    """A socket that records the sent datagrams."""

    def __init__(self) -> None:
        self.calls: list[tuple[bytes, Any]] = []

    def sendto(self, data: bytes, address: Any) -> None:
        self.calls.append((data, address))


class Upper(DatagramRequestHandler):
    def handle(self) -> None:
        self.wfile.write(self.rfile.read().upper())


def test_the_reply_is_one_datagram() -> None:
    class InParts(DatagramRequestHandler):
        def handle(self) -> None:
            for line in self.rfile:
                self.wfile.write(line)

    sock = Sent()
    handler = InParts((b"one\ntwo\n", sock), ("127.0.0.1", 9), None)
    assert sock.calls == [(b"one\ntwo\n", ("127.0.0.1", 9))]
    assert (handler.packet, handler.socket) == (b"one\ntwo\n", sock)


def test_without_a_write_nothing_is_sent() -> None:
    sock = Sent()
    Upper((b"", sock), ("127.0.0.1", 9), None)
    assert sock.calls == []
    Upper((b"", sock), None, None)
    assert sock.calls == []


def test_written_bytes_are_sent_even_if_handle_raised() -> None:
    class Raising(DatagramRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"so far")
            raise ValueError("stop")

    sock = Sent()
    with pytest.raises(ValueError, match="stop"):
        Raising((b"", sock), "peer", None)
    assert sock.calls == [(b"so far", "peer")]


@pytest.mark.parametrize("address", [None, "", b""])
def test_a_sender_without_an_address_gets_no_reply(address: Any) -> None:
    sock = Sent()
    with pytest.raises(NoReplyAddressError, match="must bind"):
        Upper((b"ping", sock), address, None)
    assert sock.calls == []
    with pytest.raises(BrokenPipeError):
        Upper((b"ping", sock), address, None)


def test_an_error_of_sendto_is_raised() -> None:
    class Refused(Sent):
        def sendto(self, data: bytes, address: Any) -> None:
            raise OSError(errno.EMSGSIZE, "Message too long")

    with pytest.raises(OSError, match="too long"):
        Upper((b"ping", Refused()), "peer", None)
