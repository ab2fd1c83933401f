"""``sockets.sending``: a send that never waits, whatever the time limit of the socket."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from tests.clients import LIMIT, read_all
from tests.sockets.tls.peers import fill

from everserve.sockets.sending import send_now

Ends = tuple[socket.socket, socket.socket]


@pytest.fixture(params=[None, LIMIT, 0.0])
def ends(request: pytest.FixtureRequest) -> Iterator[Ends]:
    """A connection whose first end has each kind of time limit."""
    ours, theirs = socket.socketpair()
    ours.settimeout(request.param)
    theirs.settimeout(LIMIT)
    with ours, theirs:
        yield ours, theirs


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("form", [bytes, memoryview])
def test_it_sends_what_there_is_room_for(ends: Ends, form: type, last: bool) -> None:
    ours, theirs = ends
    timeout = ours.gettimeout()
    assert send_now(ours, form(b"bye"), last=last) == 3
    assert ours.gettimeout() == timeout
    ours.shutdown(socket.SHUT_WR)
    assert read_all(theirs) == b"bye"


def test_without_room_it_does_not_wait(ends: Ends) -> None:
    ours, _theirs = ends
    fill(ours)
    ours.settimeout(LIMIT)
    with pytest.raises(BlockingIOError):
        send_now(ours, b"x")


def test_a_closed_socket(ends: Ends) -> None:
    ours, _theirs = ends
    ours.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        send_now(ours, b"x")
