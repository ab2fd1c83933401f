"""``admission.control``: which connections the accept loop may admit."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from math import inf
from typing import Any

import pytest

from everserve.admission.access import AccessRules, Networks
from everserve.admission.control import (
    POLICIES,
    AdmissionControl,
    Overload,
    OverloadPolicy,
    duplicate_of,
    reset,
    send_and_leave,
)

PEER = ("192.0.2.7", 4711)


class Limits:
    """The limits of a server; ``full`` is true if no more requests may be in progress."""

    max_connections_per_peer: int | None = None
    accept_rate_per_peer: float | None = None
    accept_rate: float | None = None
    accept_burst: float | None = None
    max_handshakes: int | None = None
    overload: Overload = "refuse"
    access: AccessRules | None = None
    handshakes_first = False
    header_first = False
    trusted_proxies = Networks()
    full = False

    def is_full(self) -> bool:
        return self.full


@pytest.fixture
def limits() -> Limits:
    return Limits()


@pytest.fixture
def control() -> AdmissionControl:
    return AdmissionControl()


def violations(control: AdmissionControl, limits: Limits, peer: Any = PEER) -> list[str]:
    return control.violations(limits, None, peer, limits.is_full)


class Entered:
    """A connection, as admission control sees it."""

    counted: Any = None
    in_handshake = False
    in_crowd = False

    def __init__(self, peer: Any) -> None:
        self.peer = peer


def connection(peer: Any = PEER) -> Any:
    return Entered(peer)


def test_without_limits_all_are_admitted(control: AdmissionControl, limits: Limits) -> None:
    for policy in POLICIES:
        limits.overload = policy
        assert control.has_room(limits)
        assert control.pause(limits) == 0.0
        assert violations(control, limits) == []


def test_access_comes_first(control: AdmissionControl, limits: Limits) -> None:
    limits.access = AccessRules(deny=["192.0.2.0/24"])
    limits.full = True
    limits.accept_rate, limits.accept_burst = 0.001, 1
    assert violations(control, limits) == ["access"]
    limits.access = None
    assert violations(control, limits) == ["max_connections"]


def test_each_limit_is_named(control: AdmissionControl, limits: Limits) -> None:
    limits.accept_rate, limits.accept_burst = 0.001, 1
    limits.max_connections_per_peer = limits.max_handshakes = 1
    limits.full = limits.handshakes_first = True
    control.enter(limits, connection())
    assert violations(control, limits) == [
        "max_connections_per_peer",
        "max_connections",
        "max_handshakes",
    ]


def test_a_waiting_connection_violates_nothing(control: AdmissionControl, limits: Limits) -> None:
    limits.overload, limits.full, limits.max_handshakes = "wait", True, 0
    assert not control.has_room(limits)
    assert violations(control, limits) == []
    limits.overload = "refuse"
    assert violations(control, limits) == ["max_connections", "max_handshakes"]


@pytest.mark.parametrize("overload", [*POLICIES, OverloadPolicy(lambda *_: True)])
def test_only_a_policy_that_waits_pauses(
    control: AdmissionControl, limits: Limits, overload: Overload
) -> None:
    limits.overload, limits.accept_rate, limits.accept_burst = overload, 0.001, 1
    assert control.takes_token(limits)
    assert (control.pause(limits) > 0) is (overload == "wait")


def test_the_rate_pauses_the_accept_loop(control: AdmissionControl, limits: Limits) -> None:
    limits.overload, limits.accept_rate, limits.accept_burst = "wait", 0.001, 1
    assert control.has_room(limits)
    assert control.takes_token(limits)
    assert not control.has_room(limits)
    assert control.pause(limits) == pytest.approx(1000, abs=1)


def test_a_new_rate_counts_at_once(control: AdmissionControl, limits: Limits) -> None:
    limits.accept_rate, limits.accept_burst = 0.001, 1
    assert [control.takes_token(limits) for _ in range(2)] == [True, False]
    limits.accept_burst = 2
    assert [control.takes_token(limits) for _ in range(3)] == [True, True, False]


def test_connections_of_a_peer(control: AdmissionControl, limits: Limits) -> None:
    limits.max_connections_per_peer = 1
    for policy in POLICIES:  # it cannot wait
        limits.overload = policy
        entered = connection()
        control.enter(limits, entered)
        assert violations(control, limits) == ["max_connections_per_peer"]
        assert violations(control, limits, ("192.0.2.8", 1)) == []
        control.leave(entered)
        assert violations(control, limits) == []


def test_a_peer_whose_address_changes(control: AdmissionControl, limits: Limits) -> None:
    """A PROXY header gives the real address after the connection was counted."""
    limits.max_connections_per_peer = 1
    entered = connection()
    control.enter(limits, entered)
    entered.peer = ("198.51.100.1", 1)
    control.leave(entered)
    assert len(control.peers) == 0


def test_a_limit_that_is_set_later_counts_correctly(
    control: AdmissionControl, limits: Limits
) -> None:
    before = connection()
    control.enter(limits, before)
    limits.max_connections_per_peer = 1
    entered = connection()
    control.enter(limits, entered)
    control.leave(before)
    assert violations(control, limits) == ["max_connections_per_peer"]
    limits.max_connections_per_peer = None
    control.leave(entered)
    assert len(control.peers) == 0


def test_a_handshake_counts_from_admission_on(control: AdmissionControl, limits: Limits) -> None:
    """Not from its start: a strategy may admit a hundred connections before the first handshake."""
    limits.handshakes_first, limits.max_handshakes = True, 2
    one, two = connection(), connection()
    control.enter(limits, one)
    control.handshake_started(one)  # begins: is counted already
    assert violations(control, limits) == []
    assert control.handshakes_left(limits) == 1
    control.enter(limits, two)
    assert violations(control, limits) == ["max_handshakes"]
    assert control.handshakes_left(limits) == 0
    assert not control.has_room(limits)
    assert control.handshake_done(one) is True  # others may have waited for that
    assert control.has_room(limits)
    assert control.handshake_done(one) is False
    control.leave(one)
    control.leave(two)  # without a handshake
    assert control.handshakes == 0


def test_which_handshake_is_too_slow(
    control: AdmissionControl, limits: Limits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest of the peer that has the most, after as long as others wait at most."""
    times = iter([10.0, 11.0, 12.0, 11.25, 12.5, 12.5])
    monkeypatch.setattr("everserve.admission.control.monotonic", lambda: next(times))
    assert control.slowest_handshake() is None
    other, one, two = (
        connection(("192.0.2.8", 1)),
        connection(),
        connection(),
    )
    for each in (other, one, two):
        control.handshake_started(each)
    assert control.slowest_handshake() == (one, 0.75)
    assert control.slowest_handshake() == (one, 0.0)
    control.handshake_done(one)
    assert control.slowest_handshake() == (other, 0.0)


def test_below_the_limit_nothing_waits_for_a_handshake(
    control: AdmissionControl, limits: Limits
) -> None:
    limits.handshakes_first, limits.max_handshakes = True, 2
    one = connection()
    control.enter(limits, one)
    assert control.handshake_done(one) is False
    assert control.handshakes == 0


def test_without_tls_from_the_first_byte_none_is_counted(
    control: AdmissionControl, limits: Limits
) -> None:
    limits.max_handshakes = 1
    later = connection()
    control.enter(limits, later)
    assert control.handshakes == 0
    control.handshake_started(later)  # STARTTLS
    assert control.handshakes == 1
    control.leave(later)
    assert control.handshakes == 0


def test_without_a_limit_any_number_may_begin(control: AdmissionControl, limits: Limits) -> None:
    assert control.handshakes_left(limits) == inf


def test_a_limit_that_was_lowered_leaves_none(control: AdmissionControl, limits: Limits) -> None:
    limits.handshakes_first, limits.max_handshakes = True, 2
    for _ in range(2):
        control.enter(limits, connection())
    limits.max_handshakes = 1
    assert control.handshakes_left(limits) == 0


def test_handshakes_are_counted_from_many_threads(
    control: AdmissionControl, limits: Limits
) -> None:
    def start_and_end() -> None:
        for _ in range(2000):
            one = connection()
            control.handshake_started(one)
            control.handshake_done(one)
            control.count_refusal("access")

    threads = [threading.Thread(target=start_and_end) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (control.handshakes, control.refusals) == (0, {"access": 8000})


def test_refusals_are_counted(control: AdmissionControl) -> None:
    for reason in ("access", "proxy", "access"):
        control.count_refusal(reason)
    assert control.refusals == {"access": 2, "proxy": 1}


def test_a_message_is_sent_if_there_is_room() -> None:
    one, other = socket.socketpair()
    with one, other:
        send_and_leave(one, b"full\r\n")
        assert other.recv(100) == b"full\r\n"
        send_and_leave(one, b"")
        one.setblocking(False)
        with suppress(BlockingIOError):
            while one.send(b"x" * 65536):
                pass
        send_and_leave(one, b"no one waits for room")
    send_and_leave(one, b"closed")
    send_and_leave((b"data", one), b"a datagram")


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


def test_a_duplicate() -> None:
    one, other = socket.socketpair()
    with one, other:
        duplicate = duplicate_of(one)
        assert duplicate is not None
        with duplicate:
            one.close()
            duplicate.sendall(b"still there")
            assert other.recv(100) == b"still there"
    assert duplicate_of(one) is None
    assert duplicate_of((b"data", one)) is None


def test_a_token_that_is_given_back(control: AdmissionControl, limits: Limits) -> None:
    """That of a connection which ``verify_request`` refuses."""
    control.give_back(limits, PEER)  # there is no rate, and so no token
    limits.accept_rate = limits.accept_burst = 1.0
    for _ in range(3):
        assert control.takes_token(limits)
        control.give_back(limits, PEER)
    assert control.takes_token(limits)
    assert not control.takes_token(limits)


def test_the_rate_of_a_peer(control: AdmissionControl, limits: Limits) -> None:
    limits.accept_rate_per_peer = 1
    assert control.takes_peer_token(limits, PEER)
    assert not control.takes_peer_token(limits, PEER)
    assert control.takes_peer_token(limits, ("192.0.2.8", 1))
    control.give_back(limits, PEER)
    assert control.takes_peer_token(limits, PEER)


def test_behind_a_proxy_the_limits_of_peers_wait_for_the_client(
    control: AdmissionControl, limits: Limits
) -> None:
    limits.header_first = True
    limits.trusted_proxies = Networks(["192.0.2.7"])
    limits.access = AccessRules(allow=["198.51.100.0/24"])
    limits.max_connections_per_peer, limits.accept_rate_per_peer = 1, 2
    assert violations(control, limits) == []
    assert violations(control, limits, ("192.0.2.8", 1)) == ["untrusted_proxy"]
    first, second = connection(), connection()
    control.enter(limits, first)
    assert first.counted is None
    client = ("198.51.100.1", 4711)
    assert control.client_violation(limits, second, PEER) == "access"
    assert control.client_violation(limits, first, client) is None
    assert control.client_violation(limits, second, client) == "max_connections_per_peer"
    control.leave(first)
    assert control.client_violation(limits, second, client) is None
    control.leave(second)
    third = connection()
    assert control.client_violation(limits, third, client) == "accept_rate_per_peer"
    control.leave(third)
    assert len(control.peers) == 0


def test_what_a_policy_has_waived_is_counted_all_the_same(
    control: AdmissionControl, limits: Limits
) -> None:
    limits.header_first = True
    limits.max_connections_per_peer, limits.accept_rate_per_peer = 1, 1
    first, second = connection(), connection()
    assert control.client_violation(limits, first, PEER) is None
    waived: list[str] = []
    while violation := control.client_violation(limits, second, PEER, waived):
        waived.append(violation)
    assert waived == ["max_connections_per_peer", "accept_rate_per_peer"]
    assert control.peers.count(PEER) == 2


def test_a_client_that_another_process_has_admitted(
    control: AdmissionControl, limits: Limits
) -> None:
    entered = connection()
    control.count_client(limits, entered, PEER)
    assert entered.counted is None
    limits.max_connections_per_peer = 1
    for _ in range(2):
        control.count_client(limits, entered, PEER)
    assert control.peers.count(PEER) == 1
