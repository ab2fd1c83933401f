"""The scheduler: the interpreter state that a switch keeps for a fiber, and that it must not keep."""

from __future__ import annotations

import contextvars
import sys
import threading
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest


def names_of(frame: FrameType | None) -> list[str]:
    """The functions from `frame` outwards, as a debugger walks them."""
    found = []
    while frame is not None:
        found.append(frame.f_code.co_name)
        frame = frame.f_back
    return found


def through_c(depth: int, innermost: Callable[[], object]) -> None:
    """Call `innermost` under so many calls that go from Python to C and back."""
    if depth == 0:
        innermost()
    else:
        sorted([0], key=lambda _item: through_c(depth - 1, innermost))


def dig(depth: int) -> int:
    """Overwrite the part of the C stack that fibers have used."""
    return 0 if depth == 0 else max([depth], key=lambda _item: dig(depth - 1))


@pytest.mark.parametrize("depth", range(7))
def test_frames_of_a_parked_fiber_can_be_walked(hub: Any, depth: int) -> None:
    stacks: list[list[str]] = []
    frames: list[FrameType] = []

    def innermost() -> None:
        frames.append(sys._getframe())
        stacks.append([frame.name for frame in traceback.extract_stack()])
        hub.park()
        stacks.append([frame.name for frame in traceback.extract_stack()])

    fiber = hub.spawn(through_c, depth, innermost)
    other = hub.spawn(lambda: [hub.park(), dig(20)])
    hub.turn(0)
    other.wake()
    assert other.join(5)
    walked = names_of(frames[0])
    assert walked[0] == "innermost"
    assert walked.count("through_c") == depth + 1
    fiber.wake()
    assert fiber.join(5)
    assert stacks[0] == stacks[1]


def test_the_hub_keeps_its_own_frames(hub: Any) -> None:
    def stack() -> list[str]:
        return names_of(sys._getframe())

    before = stack()
    fiber = hub.spawn(hub.park)
    hub.turn(0)
    fiber.kill()
    assert fiber.join(5)
    assert stack() == before


def test_an_error_after_a_park_has_a_complete_traceback(
    hub: Any, errors: list[BaseException]
) -> None:
    def fail() -> None:
        hub.park()
        raise LookupError("lost")

    fiber = hub.spawn(through_c, 2, fail)
    hub.turn(0)
    fiber.wake()
    assert fiber.join(5)
    names = [frame.name for frame in traceback.extract_tb(errors.pop().__traceback__)]
    assert names[-1] == "fail"
    assert names.count("through_c") == 3


def test_a_fiber_leaves_no_context_to_the_next_in_its_greenlet(parts: Any) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    seen: list[str] = []

    def fiber(value: str) -> None:
        seen.append(variable.get())
        variable.set(value)
        hub.park(0.001)
        seen.append(variable.get())

    def turn_in_a_fresh_thread() -> None:  # where no context was ever set
        nonlocal hub
        hub = parts.Hub()
        for value in ("one", "two"):
            assert hub.spawn(fiber, value).join(5)
        seen.append(variable.get())
        hub.close()

    hub: Any = None
    thread = threading.Thread(target=turn_in_a_fresh_thread)
    thread.start()
    thread.join(20)
    assert seen == ["unset", "one", "unset", "two", "unset"]
