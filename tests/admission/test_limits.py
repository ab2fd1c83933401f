"""``admission.limits``: the counters that the accept loop checks."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everserve.admission.limits import PeerCounter, PeerRates, TokenBucket


class Clock:
    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_burst_then_the_rate(clock: Clock) -> None:
    bucket = TokenBucket(10, 3, clock)
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]
    assert bucket.wait() == pytest.approx(0.1)
    clock.time += 0.05
    assert bucket.wait() == pytest.approx(0.05)
    clock.time += 0.05
    assert bucket.take()
    assert not bucket.take()


def test_it_saves_no_more_than_a_burst(clock: Clock) -> None:
    bucket = TokenBucket(10, 3, clock)
    clock.time += 1000
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]


@pytest.mark.parametrize(
    ("rate", "burst", "at_once"), [(10, None, 10), (0.5, None, 1), (10, 0.2, 1), (1, 50, 50)]
)
def test_the_size_of_a_burst(rate: float, burst: float | None, at_once: int, clock: Clock) -> None:
    bucket = TokenBucket(rate, burst, clock)
    assert sum(bucket.take() for _ in range(100)) == at_once


def test_after_the_wait_one_may_pass(clock: Clock) -> None:
    bucket = TokenBucket(3, 1, clock)
    for _ in range(1000):
        assert bucket.take()
        clock.time += bucket.wait()
    assert clock.time == pytest.approx(1000 + 1000 / 3, rel=1e-3)


@given(st.floats(0.01, 1000), st.integers(1, 20), st.lists(st.floats(0, 2), max_size=50))
def test_never_more_than_rate_and_burst(rate: float, burst: int, pauses: list[float]) -> None:
    clock = Clock()
    bucket = TokenBucket(rate, burst, clock)
    passed = 0
    for pause in pauses:
        clock.time += pause
        passed += sum(bucket.take() for _ in range(30))
        assert passed <= burst + rate * (clock.time - 1000) + 0.01


def test_peers() -> None:
    counter = PeerCounter()
    for port in range(3):
        counter.add(("192.0.2.7", port))
    counter.add(("192.0.2.8", 1))
    assert counter.count(("192.0.2.7", 99)) == 3
    assert counter.count(("::ffff:192.0.2.7", 99, 0, 0)) == 3  # over a dual-stack socket
    assert counter.count(("192.0.2.9", 1)) == 0
    assert len(counter) == 2


def test_an_ipv6_peer_is_its_64() -> None:
    counter = PeerCounter()
    counter.add(("2001:db8:0:1::1", 1, 0, 0))
    counter.add(("2001:db8:0:1:ffff::2", 1, 0, 0))
    assert counter.count(("2001:db8:0:1:1234::", 1, 0, 0)) == 2
    assert counter.count(("2001:db8:0:2::1", 1, 0, 0)) == 0


def test_a_peer_without_an_address_is_not_counted() -> None:
    counter = PeerCounter()
    for address in ("/path", "", None):
        counter.add(address)
        assert counter.count(address) == 0
        counter.remove(address)
    assert len(counter) == 0


def test_a_peer_without_connections_is_removed() -> None:
    counter = PeerCounter()
    peer = ("192.0.2.7", 1)
    counter.add(peer)
    counter.add(peer)
    counter.remove(peer)
    assert counter.count(peer) == 1
    counter.remove(peer)
    counter.remove(peer)  # once too often does no harm
    assert (counter.count(peer), len(counter)) == (0, 0)


def test_from_many_threads() -> None:
    counter = PeerCounter()
    peer = ("192.0.2.7", 1)

    def come_and_go() -> None:
        for _ in range(2000):
            counter.add(peer)
            counter.remove(peer)

    threads = [threading.Thread(target=come_and_go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(counter) == 0


def test_each_peer_has_a_rate_of_its_own(clock: Clock) -> None:
    rates = PeerRates(2, clock)
    for host in ("192.0.2.7", "192.0.2.8"):
        assert [rates.take((host, port)) for port in range(3)] == [True, True, False]
    clock.time += 0.5
    assert [rates.take(("192.0.2.7", port)) for port in range(2)] == [True, False]
    assert rates.take("/run/socket")


def test_the_addresses_of_one_64_share_a_rate(clock: Clock) -> None:
    rates = PeerRates(0.5, clock)
    assert rates.take(("2001:db8::1", 1, 0, 0))
    assert not rates.take(("2001:db8::2", 1, 0, 0))
    assert rates.take(("2001:db8:0:1::1", 1, 0, 0))


def test_a_peer_gets_its_token_back(clock: Clock) -> None:
    rates = PeerRates(1, clock)
    for _ in range(3):
        assert rates.take(("192.0.2.7", 1))
        rates.give_back(("192.0.2.7", 1))
    rates.give_back(("192.0.2.8", 1))
    rates.give_back(None)


def test_it_remembers_a_bounded_number_of_peers(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PeerRates, "MOST", 10)
    rates = PeerRates(1, clock)
    for number in range(50):
        assert rates.take((f"192.0.2.{number}", 1))
        assert len(rates) <= 10
    assert not rates.take(("192.0.2.49", 1))
    clock.time += 2
    rates._forget(clock.time)
    assert len(rates) == 0


def test_a_count_has_a_limit() -> None:
    counter = PeerCounter()
    address = ("192.0.2.7", 1)
    assert [counter.add(address, 2) for _ in range(3)] == [True, True, False]
    assert counter.count(address) == 2
