"""``admission.door``: who may come in, asked on the accept loop."""

from __future__ import annotations

import socket
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest

from everserve.admission.access import AccessRules
from everserve.admission.control import (
    POLICIES,
    Door,
    read_policy,
    reset,
    say_and_leave,
    twin_of,
)
from everserve.errors import OptionError

PEER = ("192.0.2.7", 4711)


class Keeper:
    max_connections_per_peer: int | None = None
    accept_rate: float | None = None
    accept_burst: float | None = None
    max_handshakes: int | None = None
    overload: Any = "refuse"
    access: AccessRules | None = None
    tls: Any = None
    implicit_tls = True
    full = False

    def _is_full(self) -> bool:
        return self.full


@pytest.fixture
def keeper() -> Keeper:
    return Keeper()


@pytest.fixture
def door(keeper: Keeper) -> Door:
    return Door(keeper)


def first_objection(door: Door) -> str | None:
    return next(iter(door.objections(PEER)), None)


def connection(peer: Any = PEER) -> Any:
    return SimpleNamespace(peer=peer, counted=None, greeting=False)


def test_without_limits_it_is_open(door: Door, keeper: Keeper) -> None:
    for policy in POLICIES:
        keeper.overload = policy
        assert door.is_open()
        assert door.pause() == 0.0
        assert first_objection(door) is None


def test_access_comes_first(door: Door, keeper: Keeper) -> None:
    keeper.access = AccessRules(deny=["192.0.2.0/24"])
    keeper.full = True
    keeper.accept_rate, keeper.accept_burst = 0.001, 1
    assert first_objection(door) == "access"
    keeper.access = None  # it has cost nobody his place in the rate
    assert first_objection(door) == "max_connections"
    assert first_objection(door) == "accept_rate"


def test_who_waits_is_not_objected_to(door: Door, keeper: Keeper) -> None:
    keeper.overload, keeper.full = "wait", True
    assert not door.is_open()
    assert first_objection(door) is None
    keeper.overload = "refuse"
    assert door.is_open()
    assert first_objection(door) == "max_connections"


def test_the_rate_makes_wait(door: Door, keeper: Keeper) -> None:
    keeper.overload, keeper.accept_rate, keeper.accept_burst = "wait", 0.001, 1
    assert door.is_open()
    assert first_objection(door) is None
    assert not door.is_open()
    assert door.pause() == pytest.approx(1000, abs=1)


def test_a_new_rate_counts_at_once(door: Door, keeper: Keeper) -> None:
    keeper.accept_rate, keeper.accept_burst = 0.001, 1
    assert [first_objection(door) for _ in range(2)] == [None, "accept_rate"]
    keeper.accept_burst = 2
    assert [first_objection(door) for _ in range(3)] == [None, None, "accept_rate"]


def test_connections_of_a_peer(door: Door, keeper: Keeper) -> None:
    keeper.max_connections_per_peer = 1
    for policy in POLICIES:  # it cannot wait
        keeper.overload = policy
        inside = connection()
        door.enter(inside)
        assert first_objection(door) == "max_connections_per_peer"
        assert not door.objections(("192.0.2.8", 1))
        door.leave(inside)
        assert first_objection(door) is None


def test_a_peer_that_turns_out_to_be_another(door: Door, keeper: Keeper) -> None:
    """A PROXY header tells after it was counted who is really there."""
    keeper.max_connections_per_peer = 1
    inside = connection()
    door.enter(inside)
    inside.peer = ("198.51.100.1", 1)
    door.leave(inside)
    assert len(door.peers) == 0


def test_a_limit_that_comes_later_does_not_count_wrong(door: Door, keeper: Keeper) -> None:
    before = connection()
    door.enter(before)
    keeper.max_connections_per_peer = 1
    inside = connection()
    door.enter(inside)
    door.leave(before)
    assert first_objection(door) == "max_connections_per_peer"
    keeper.max_connections_per_peer = None
    door.leave(inside)
    assert len(door.peers) == 0


def test_a_handshake_counts_from_the_door_on(door: Door, keeper: Keeper) -> None:
    """Not from when it begins: a strategy may let in a hundred before the first one runs."""
    keeper.tls, keeper.max_handshakes = object(), 2
    one, two = connection(), connection()
    door.enter(one)
    door.greet(one)  # begins: is counted already
    assert first_objection(door) is None
    assert door.handshakes_left() == 1
    door.enter(two)
    assert first_objection(door) == "max_handshakes"
    keeper.overload = "wait"
    assert not door.is_open()
    assert door.greeted(one)  # somebody may have waited for that
    assert door.is_open()
    assert not door.greeted(one)
    door.leave(one)
    door.leave(two)  # without a handshake
    assert door.handshakes == 0


def test_without_tls_there_are_no_handshakes(door: Door, keeper: Keeper) -> None:
    keeper.max_handshakes = 1
    door.enter(connection())
    keeper.tls, keeper.implicit_tls = object(), False
    later = connection()
    door.enter(later)
    assert door.handshakes == 0
    door.greet(later)  # STARTTLS
    assert door.handshakes == 1
    door.leave(later)
    assert door.handshakes == 0


def test_without_a_limit_there_is_no_end_of_them(door: Door) -> None:
    assert door.handshakes_left() == float("inf")


def test_refusals_are_counted(door: Door) -> None:
    for reason in ("access", "proxy", "access"):
        door.refuse(reason)
    assert door.refusals == {"access": 2, "proxy": 1}


def test_a_last_word_is_said_if_there_is_room() -> None:
    one, other = socket.socketpair()
    with one, other:
        say_and_leave(one, b"full\r\n")
        assert other.recv(100) == b"full\r\n"
        say_and_leave(one, b"")
        one.setblocking(False)
        with suppress(BlockingIOError):
            while one.send(b"x" * 65536):
                pass
        say_and_leave(one, b"nobody waits for room")
    say_and_leave(one, b"closed")
    say_and_leave((b"data", one), b"a datagram")


def test_a_reset() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()) as client:
            accepted, _ = listener.accept()
            reset(accepted)
            accepted.close()
            with pytest.raises(ConnectionResetError):
                client.recv(1)
    reset(accepted)
    reset((b"data", listener))


def test_a_twin() -> None:
    one, other = socket.socketpair()
    with one, other:
        twin = twin_of(one)
        assert twin is not None
        with twin:
            one.close()
            twin.sendall(b"still there")
            assert other.recv(100) == b"still there"
    assert twin_of(one) is None
    assert twin_of((b"data", one)) is None


@pytest.mark.parametrize("policy", [*POLICIES, print])
def test_policies(policy: Any) -> None:
    assert read_policy(policy) is policy


@pytest.mark.parametrize("value", ["", "drop", None, 3])
def test_what_is_no_policy(value: Any) -> None:
    with pytest.raises(
        OptionError, match="there are wait, refuse, reset, shed-idle, or a callable"
    ):
        read_policy(value)
