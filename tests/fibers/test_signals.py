"""What a signal handler raises leaves the turn of the hub, and does not end the busy fiber alone."""

from __future__ import annotations

import functools
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest


class Custom(Exception):
    """What a program may raise in its handler."""


def leave(*_arguments: Any) -> None:
    sys.exit(3)


def raise_custom(_signal: int, _frame: Any) -> None:
    raise Custom


def deeper(_signal: int, _frame: Any) -> None:
    leave()


class Handler:
    def __call__(self, _signal: int, _frame: Any, _more: Any = None) -> None:
        raise Custom

    def method(self, _signal: int, _frame: Any) -> None:
        sys.exit(3)


def with_another_first(_other: str, _signal: int, _frame: Any) -> None:
    sys.exit(3)


HANDLERS: list[tuple[Callable[..., Any], type[BaseException]]] = [
    (lambda *_arguments: sys.exit(0), SystemExit),
    (leave, SystemExit),
    (deeper, SystemExit),
    (raise_custom, Custom),
    (Handler(), Custom),
    (Handler().method, SystemExit),
    (functools.partial(with_another_first, "x"), SystemExit),
    (signal.default_int_handler, KeyboardInterrupt),
]


@pytest.fixture
def install() -> Iterator[Callable[[Any], None]]:
    before = signal.getsignal(signal.SIGUSR1)
    yield lambda handler: signal.signal(signal.SIGUSR1, handler) and None
    signal.signal(signal.SIGUSR1, before)


def busy() -> None:
    """A handler of a request, which a signal interrupts."""
    for _step in range(10):
        signal.raise_signal(signal.SIGUSR1)


def nested() -> None:
    try:
        busy()
    finally:
        str(1)


without_frame = functools.partial(signal.raise_signal, signal.SIGUSR1)
"""With the compiled engine, the signal handler then has no frame that it interrupts."""


@pytest.mark.parametrize("function", [busy, nested, without_frame])
@pytest.mark.parametrize(("handler", "kind"), HANDLERS)
def test_what_a_signal_handler_raises_leaves_the_turn(
    hub: Any,
    install: Callable[[Any], None],
    handler: Any,
    kind: type[BaseException],
    function: Callable[[], None],
) -> None:
    install(handler)
    fiber = hub.spawn(function)
    with pytest.raises(kind):
        hub.turn(0)
    assert fiber.dead
    ended: list[int] = []
    assert hub.spawn(ended.append, 1).join(10)  # the hub can be turned further
    assert ended == [1]


def test_what_a_fiber_raises_itself_ends_it_alone(
    hub: Any, errors: list[BaseException], install: Callable[[Any], None]
) -> None:
    install(leave)

    def fails(number: int, _frame: Any) -> None:
        raise Custom

    def calls_a_function_like_a_handler() -> None:
        fails(signal.SIGUSR1, None)

    assert hub.spawn(leave).join(10)
    assert hub.spawn(calls_a_function_like_a_handler).join(10)
    assert hub.spawn(fails, signal.SIGUSR1, None).join(10)
    assert [type(error) for error in errors] == [Custom, Custom]
    errors.clear()
