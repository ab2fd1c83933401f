"""The logger: what a handler of it raises is not raised where something is logged."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable, Iterator

import pytest

from everserve.fibers.exits import FiberExit
from everserve.fibers.log import logger


class Raising(logging.Handler):
    """A handler of a program that does not catch its own errors, as on a full disk."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def emit(self, record: logging.LogRecord) -> None:
        raise self.error


@pytest.fixture
def broken() -> Iterator[Callable[[BaseException], None]]:
    """Adds a handler that raises the given error."""
    handlers: list[Raising] = []

    def add(error: BaseException) -> None:
        handlers.append(Raising(error))
        logging.getLogger("everserve").addHandler(handlers[-1])

    yield add
    for handler in handlers:
        logging.getLogger("everserve").removeHandler(handler)


@pytest.mark.parametrize("error", [OSError(28, "No space left"), SystemExit(3), MemoryError()])
def test_a_handler_that_raises_costs_its_line(
    broken: Callable[[BaseException], None], error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    broken(error)
    logger.error("no one can read this")
    try:
        raise ValueError
    except ValueError:
        logger.exception("nor this")
    assert type(error).__name__ in sys.stderr.getvalue()  # type: ignore[attr-defined]


def test_without_a_stderr_it_is_silent(
    broken: Callable[[BaseException], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(OSError(28, "No space left"))
    for stderr in (None, Closed()):
        monkeypatch.setattr(sys, "stderr", stderr)
        logger.error("x")


class Closed(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


@pytest.mark.parametrize("error", [FiberExit(), KeyboardInterrupt()])
def test_what_ends_the_program_or_the_fiber_is_raised(
    broken: Callable[[BaseException], None], error: BaseException
) -> None:
    broken(error)
    with pytest.raises(type(error)):
        logger.error("x")


def test_a_line_names_its_place_and_keeps_its_extra(caplog: pytest.LogCaptureFixture) -> None:
    logger.warning("at %d", 3, extra={"event": "mine"})
    (record,) = caplog.records
    assert record.pathname == __file__
    assert record.getMessage() == "at 3"
    assert vars(record)["event"] == "mine"
