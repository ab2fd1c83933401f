"""Event, Queue, Timeout, sleep: between fibers, and between fibers and threads."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from everserve.errors import FiberTimeout
from everserve.fibers.sync import Event, Queue, sleep
from everserve.fibers.timeouts import Timeout

Run = Callable[..., Any]


def finish(hub: Any) -> None:
    while hub.fibers:
        hub.turn(10)


def test_an_event_wakes_all_waiters(hub: Any) -> None:
    event = Event()
    seen: list[bool] = []
    for _ in range(3):
        hub.spawn(lambda: seen.append(event.wait()))
    hub.turn(0)
    hub.spawn(event.set)
    finish(hub)
    assert seen == [True] * 3
    assert event.is_set()
    event.clear()
    assert not event.is_set()


def test_a_wait_for_an_event_ends_in_time(run: Run) -> None:
    event = Event()
    assert run(event.wait, 0.01) is False
    assert event.wait(0.01) is False


def test_a_thread_sets_and_waits_for_events(hub: Any) -> None:
    there, back = Event(), Event()
    seen: list[bool] = []

    def thread() -> None:
        seen.append(there.wait(10))
        back.set()

    outside = threading.Thread(target=thread)

    def fiber() -> None:
        there.set()
        seen.append(back.wait(10))

    hub.spawn(fiber)
    outside.start()
    finish(hub)
    outside.join()
    assert seen == [True, True]


def test_a_queue_keeps_the_order_and_its_bound(hub: Any) -> None:
    items: Queue[int] = Queue(2)
    got: list[int] = []

    def put() -> None:
        for number in range(50):
            items.put(number)
            assert items.qsize() <= 2

    def get() -> None:
        got.extend(items.get() for _ in range(50))

    hub.spawn(put)
    hub.spawn(get)
    finish(hub)
    assert got == list(range(50))
    assert items.empty()
    assert not items.full()


def test_a_queue_between_a_thread_and_fibers(hub: Any) -> None:
    items: Queue[int] = Queue()
    got: list[int] = []

    def get() -> None:
        while (number := items.get(timeout=20)) >= 0:
            got.append(number)

    for _ in range(3):
        hub.spawn(get)
    hub.turn(0)

    def put() -> None:
        for number in range(300):
            items.put(number)
        for _ in range(3):
            items.put(-1)

    thread = threading.Thread(target=put)
    thread.start()
    finish(hub)
    thread.join()
    assert sorted(got) == list(range(300))


def test_a_queue_raises_what_the_standard_one_does(run: Run) -> None:
    items: Queue[int] = Queue(1)
    with pytest.raises(queue.Empty):
        items.get_nowait()
    with pytest.raises(queue.Empty):
        run(lambda: items.get(timeout=0.01))
    items.put_nowait(1)
    with pytest.raises(queue.Full):
        items.put_nowait(2)
    with pytest.raises(queue.Full):
        run(lambda: items.put(2, timeout=0.01))
    assert items.get() == 1


def test_a_killed_getter_passes_its_notification_on(hub: Any) -> None:
    items: Queue[int] = Queue()
    got: list[int] = []
    first = hub.spawn(lambda: got.append(items.get()))
    hub.spawn(lambda: got.append(items.get()))
    hub.turn(0)
    items.put(7)
    first.kill()
    hub.turn(0)
    finish(hub) if not got else None
    assert got == [7]
    items.put(8)
    finish(hub)


def test_timeouts_nest(run: Run) -> None:
    def nested() -> list[str]:
        caught: list[str] = []
        try:
            with Timeout(10) as outer:
                try:
                    with Timeout(0.01) as inner:
                        sleep(30)
                except FiberTimeout as error:
                    caught.append("inner" if error.timeout is inner else "wrong")
                assert not outer.expired
            with Timeout(0.01) as outer, Timeout(10):
                sleep(30)
        except TimeoutError as error:
            caught.append("outer" if getattr(error, "timeout", None) is outer else "wrong")
        with Timeout(None), Timeout(5):
            sleep(0.001)
        return caught

    assert run(nested) == ["inner", "outer"]


@pytest.mark.parametrize("inner", [0.001, 0.002, 0.003])
def test_timeouts_that_expire_at_once_are_both_raised(run: Run, inner: float) -> None:
    """In either order: the outer one also ends what the handler of the inner one does."""
    inner_block, outer_block = Timeout(inner), Timeout(0.002)

    def nested() -> object:
        try:
            with outer_block:
                while True:
                    try:
                        with inner_block:
                            time.sleep(0.01)  # holds the loop, until both have expired
                            sleep(60)
                    except FiberTimeout as error:
                        if error.timeout is not inner_block:
                            raise
        except FiberTimeout as error:
            return error.timeout

    assert run(nested) is outer_block


def test_sleep_outside_of_a_fiber_is_that_of_time() -> None:
    sleep(0.001)


def test_sleepers_wake_in_the_order_of_their_times(hub: Any) -> None:
    order: list[int] = []

    def nap(number: int) -> None:
        sleep(number * 0.005)
        order.append(number)

    for number in (3, 1, 2):
        hub.spawn(nap, number)
    finish(hub)
    assert order == [1, 2, 3]
