"""Semaphore: at most so many at a time, fibers and threads alike."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
from tests.clients import LIMIT, Background

from everserve.errors import FiberTimeout
from everserve.fibers.exits import FiberExit
from everserve.fibers.sync import Event, sleep
from everserve.fibers.timeouts import Timeout

Run = Callable[..., Any]


@pytest.fixture
def none_free(parts: Any) -> Any:
    """A semaphore without a free place."""
    return parts.Semaphore(0)


def finish(hub: Any) -> None:
    until = time.monotonic() + LIMIT
    while hub.fibers:
        assert time.monotonic() < until, "a fiber waits for ever"
        hub.turn(1)


def free(semaphore: Any) -> int:
    """How many places are free; takes them."""
    count = 0
    while semaphore.acquire(blocking=False):
        count += 1
    return count


def test_as_many_as_there_are_places(parts: Any) -> None:
    semaphore = parts.Semaphore(3)
    assert [semaphore.acquire() for _ in range(3)] == [True] * 3
    assert semaphore.acquire(blocking=False) is False
    assert semaphore.acquire(False) is False
    semaphore.release()
    assert semaphore.acquire(blocking=False) is True
    assert semaphore.acquire(blocking=False) is False


def test_one_place_unless_more_are_given(parts: Any) -> None:
    assert free(parts.Semaphore()) == 1
    assert free(parts.Semaphore(0)) == 0
    assert free(parts.Semaphore(value=5)) == 5


@pytest.mark.parametrize("value", [-1, -100])
def test_fewer_than_no_places_are_refused(parts: Any, value: int) -> None:
    with pytest.raises(ValueError, match=f"cannot begin at {value}"):
        parts.Semaphore(value)


def test_more_may_be_released_than_were_acquired(parts: Any) -> None:
    semaphore = parts.Semaphore(1)
    for _ in range(3):
        semaphore.release()
    assert free(semaphore) == 4


def test_a_block_holds_a_place(parts: Any) -> None:
    semaphore = parts.Semaphore(1)
    with semaphore as entered:
        assert entered is True
        assert semaphore.acquire(blocking=False) is False
    assert free(semaphore) == 1


def test_a_block_that_raises_gives_its_place_back(parts: Any) -> None:
    semaphore = parts.Semaphore(1)
    with pytest.raises(KeyError), semaphore:
        raise KeyError
    assert free(semaphore) == 1


def test_it_admits_so_many_and_in_order(parts: Any, hub: Any) -> None:
    semaphore = parts.Semaphore(2)
    inside = most = 0
    order: list[int] = []

    def visit(number: int) -> None:
        nonlocal inside, most
        with semaphore:
            order.append(number)
            inside += 1
            most = max(most, inside)
            sleep()
            inside -= 1

    for number in range(20):
        hub.spawn(visit, number)
    finish(hub)
    assert most == 2
    assert order == list(range(20))
    assert free(semaphore) == 2


def test_a_place_goes_to_a_waiter_and_not_to_a_newcomer(none_free: Any, hub: Any) -> None:
    order: list[str] = []

    def wait() -> None:
        none_free.acquire()
        order.append("waiter")
        none_free.release()

    def come() -> None:
        none_free.release()
        assert not none_free.acquire(blocking=False), "the place was taken from the waiter"
        with none_free:
            order.append("newcomer")

    hub.spawn(wait)
    hub.turn(0)
    hub.spawn(come)
    finish(hub)
    assert order == ["waiter", "newcomer"]


# --- giving up ---------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0.0, 0.01])
def test_a_wait_ends_in_time(none_free: Any, run: Run, limit: float) -> None:
    assert run(lambda: none_free.acquire(timeout=limit)) is False
    assert none_free.acquire(timeout=limit) is False
    assert none_free.acquire(True, limit) is False
    assert Background(none_free.acquire, True, limit).result() is False
    none_free.release()
    assert free(none_free) == 1, "those that gave up have left the queue"


def test_a_free_place_is_taken_without_a_wait(parts: Any, run: Run) -> None:
    semaphore = parts.Semaphore(2)
    assert run(lambda: semaphore.acquire(timeout=0.0)) is True
    assert semaphore.acquire(timeout=0.0) is True


def test_a_place_that_becomes_free_in_time_is_taken(none_free: Any, hub: Any) -> None:
    got: list[bool] = []
    hub.spawn(lambda: got.append(none_free.acquire(timeout=LIMIT)))
    hub.turn(0)
    hub.spawn(none_free.release)
    finish(hub)
    waiting = Background(none_free.acquire, True, LIMIT)
    none_free.release()
    assert [*got, waiting.result()] == [True, True]


def killed(hub: Any, fiber: Any) -> None:
    fiber.kill(FiberExit)
    hub.turn(0)
    assert fiber.dead


def test_a_killed_waiter_leaves_the_queue(none_free: Any, hub: Any) -> None:
    got: list[str] = []
    first = hub.spawn(lambda: got.append("first" * none_free.acquire()))
    hub.spawn(lambda: got.append("second" * none_free.acquire()))
    hub.turn(0)
    killed(hub, first)
    none_free.release()
    finish(hub)
    assert got == ["second"]
    assert free(none_free) == 0


def test_a_waiter_that_is_killed_after_its_notification_passes_the_place_on(
    none_free: Any, hub: Any
) -> None:
    got: list[str] = []
    first = hub.spawn(lambda: got.append("first" * none_free.acquire()))
    hub.spawn(lambda: got.append("second" * none_free.acquire()))
    hub.turn(0)
    none_free.release()
    killed(hub, first)
    finish(hub)
    assert got == ["second"]
    assert free(none_free) == 0


def test_the_last_waiter_that_is_killed_gives_the_place_back(none_free: Any, hub: Any) -> None:
    victim = hub.spawn(none_free.acquire)
    hub.turn(0)
    none_free.release()
    killed(hub, victim)
    assert free(none_free) == 1


def test_a_holder_that_is_killed_gives_the_place_back(parts: Any, hub: Any) -> None:
    semaphore = parts.Semaphore(1)

    def stay() -> None:
        with semaphore:
            sleep(LIMIT)

    victim = hub.spawn(stay)
    hub.turn(0)
    assert not semaphore.acquire(blocking=False)
    killed(hub, victim)
    assert free(semaphore) == 1


def test_a_timeout_block_ends_the_wait(none_free: Any, run: Run) -> None:
    def wait() -> None:
        with pytest.raises(FiberTimeout), Timeout(0.001), none_free:
            raise AssertionError("it was admitted")

    run(wait)
    none_free.release()
    assert free(none_free) == 1


def test_a_notification_that_comes_with_the_end_of_time_is_not_lost(
    none_free: Any, hub: Any
) -> None:
    """Either the first waiter has the place, or the next one has."""
    got: list[str] = []
    limit = 0.001
    hub.spawn(lambda: got.append("first" * none_free.acquire(timeout=limit)))
    hub.spawn(lambda: got.append("second" * none_free.acquire()))
    hub.turn(0)
    over = time.monotonic() + 2 * limit
    while time.monotonic() < over:  # holds the loop until the time of the first one has passed
        pass
    none_free.release()
    hub.turn(0)
    hub.turn(0)
    assert got in (["first"], ["", "second"])
    if got == ["first"]:
        none_free.release()
    finish(hub)
    assert free(none_free) == 0


# --- fibers and threads ------------------------------------------------------------------------


def test_a_thread_notifies_a_fiber(none_free: Any, hub: Any) -> None:
    got: list[bool] = []
    hub.spawn(lambda: got.append(none_free.acquire(timeout=LIMIT)))
    hub.turn(0)
    releasing = Background(none_free.release)
    finish(hub)
    releasing.result()
    assert got == [True]


def test_a_fiber_notifies_a_thread(none_free: Any, hub: Any) -> None:
    waiting = Background(none_free.acquire, True, LIMIT)
    hub.spawn(none_free.release)
    finish(hub)
    assert waiting.result() is True


def test_fibers_of_two_threads(parts: Any) -> None:
    """They pass it to each other in turn, and wake the loop of the other."""
    turns = parts.Semaphore(1), parts.Semaphore(0)
    order: list[int] = []
    errors: list[BaseException] = []

    def play(mine: int) -> None:
        for _ in range(100):
            assert turns[mine].acquire(timeout=LIMIT)
            order.append(mine)
            turns[1 - mine].release()

    def loop(mine: int) -> None:
        hub = parts.Hub(on_error=lambda _fiber, error: errors.append(error))
        hub.spawn(play, mine)
        finish(hub)
        hub.close()

    players = [Background(loop, mine) for mine in (0, 1)]
    for player in players:
        player.result()
    assert not errors
    assert order == [0, 1] * 100


@pytest.mark.parametrize("value", [1, 3])
def test_never_more_inside_than_there_are_places(parts: Any, hub: Any, value: int) -> None:
    """A holder takes one of as many tokens: if none is left, there are too many holders."""
    semaphore = parts.Semaphore(value)
    tokens = deque(range(value))
    visits: list[str] = []
    all_are_here = Event()

    def visit(kind: str) -> None:
        all_are_here.wait()
        for _ in range(30):
            with semaphore:
                token = tokens.pop()
                sleep()
                tokens.append(token)
            if semaphore.acquire(timeout=0.0001):
                token = tokens.pop()
                tokens.append(token)
                semaphore.release()
            visits.append(kind)

    threads = [Background(visit, "thread") for _ in range(8)]
    for _ in range(24):
        hub.spawn(visit, "fiber")
    hub.spawn(all_are_here.set)
    finish(hub)
    for thread in threads:
        thread.result()
    assert visits.count("fiber") == 24 * 30
    assert visits.count("thread") == 8 * 30
    assert free(semaphore) == value
