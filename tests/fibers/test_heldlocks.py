"""Which lock a stalled fiber waits for, and who holds it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest
from tests.clients import LIMIT, Background

from everserve.fibers.heldlocks import describe_wait
from everserve.fibers.stalls import watch_stalls
from everserve.fibers.sync import Event

module_lock = threading.Lock()


class Room:
    def __init__(self, lock: Any) -> None:
        self.lock = lock


def hold_by_with(room: Room, wait: Callable[[], object]) -> None:
    with room.lock:
        for _ in range(1):
            try:
                with open("/dev/null"):  # another block within
                    wait()
            finally:
                pass


def hold_by_acquire(room: Room, wait: Callable[[], object]) -> None:
    room.lock.acquire()
    wait()
    room.lock.release()


def want_by_with(room: Room) -> None:
    with room.lock:
        pass


def want_by_acquire(room: Room) -> None:
    room.lock.acquire()
    room.lock.release()


@contextmanager
def threads(hold: Any, want: Any, room: Room) -> Iterator[tuple[FrameType, FrameType]]:
    """The frames of a thread that holds the lock, and of one that waits for it."""
    held, free = threading.Event(), threading.Event()
    holding = Background(hold, room, lambda: held.set() or free.wait(LIMIT))
    assert held.wait(LIMIT)
    wanting = Background(want, room)
    try:
        for _ in range(10_000):
            frame = sys._current_frames()[wanting.ident or 0]
            if describe_wait(frame, []):  # it has come as far
                break
            wanting.join(0.001)
        yield sys._current_frames()[holding.ident or 0], frame
    finally:
        free.set()
        holding.result()
        wanting.result()


@pytest.mark.parametrize("kind", [threading.Lock, threading.RLock, threading.Condition])
@pytest.mark.parametrize("hold", [hold_by_with, hold_by_acquire])
@pytest.mark.parametrize("want", [want_by_with, want_by_acquire])
def test_it_names_the_lock_and_the_place_of_its_holder(kind: Any, hold: Any, want: Any) -> None:
    if kind is threading.Condition and want is want_by_acquire:
        kind = threading.Lock  # its acquire is a plain attribute: the same case
    with threads(hold, want, Room(kind())) as (holder, frame):
        line = describe_wait(frame, [("a thread", holder)])
    assert line.startswith("waits for the lock room.lock, which a thread holds in ")
    assert f"{hold.__name__} ({__file__}, line " in line


def test_a_lock_whose_holder_is_unknown() -> None:
    with threads(hold_by_with, want_by_with, Room(threading.Lock())) as (_, frame):
        line = describe_wait(frame, [("itself", sys._getframe())])
    assert line.startswith("waits for the lock room.lock: <locked")


def test_a_global_lock_that_this_frame_has_released() -> None:
    def want() -> FrameType:
        with module_lock:
            pass
        return sys._getframe()

    assert describe_wait(want(), []) == ""


def test_a_stall_says_which_fiber_holds_the_lock(hub: Any) -> None:
    """The mistake itself: a lock of `threading` that is held while its holder is parked."""
    room, parked = Room(threading.Lock()), Event()
    stalls: list[str] = []
    came = threading.Event()

    def report(_fiber: Any, stack: str) -> None:
        stalls.append(stack)
        came.set()

    def rescue() -> None:
        assert came.wait(LIMIT)
        room.lock.release()  # what no one does in a program

    def hold() -> None:
        try:
            hold_by_with(room, parked.wait)
        except RuntimeError:
            pass  # it was released

    watch_stalls(hub, report, 0.02)
    holder = hub.spawn(hold)
    hub.turn(0)
    wanting = hub.spawn(want_by_with, room)
    rescuer = Background(rescue)
    assert wanting.join(LIMIT)
    parked.set()
    assert holder.join(LIMIT)
    rescuer.result()
    assert "room.lock, which a parked fiber holds in hold_by_with" in stalls[0]
