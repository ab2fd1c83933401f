"""``lifecycle.emitter``: all subscribers get the events, and none can stop the others."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from everserve.events import Draining, ServerEvent, Truncated
from everserve.fibers.exits import FiberExit
from everserve.lifecycle.emitter import Emitter

EVENT = Draining(1.0)


def test_without_subscribers_nothing_happens() -> None:
    emitter = Emitter()
    assert not emitter.subscribers
    emitter.emit(EVENT)


def test_each_subscriber_gets_each_event_in_order() -> None:
    emitter = Emitter()
    got: list[Any] = []
    emitter.subscribe(lambda event: got.append(("first", event)))
    emitter.subscribe(lambda event: got.append(("second", event)))
    other = Draining(2.0)
    emitter.emit(EVENT)
    emitter.emit(other)
    assert got == [("first", EVENT), ("second", EVENT), ("first", other), ("second", other)]


def test_a_subscription_ends_once() -> None:
    emitter = Emitter()
    got: list[ServerEvent] = []
    ends = [emitter.subscribe(got.append) for _ in range(2)]
    ends[0]()
    ends[0]()  # once more does not end the other
    emitter.emit(EVENT)
    assert got == [EVENT]
    ends[1]()
    emitter.emit(EVENT)
    assert got == [EVENT]
    assert not emitter.subscribers


def test_a_subscriber_may_end_its_subscription_while_it_is_called() -> None:
    emitter = Emitter()
    got: list[str] = []

    def once(event: ServerEvent) -> None:
        got.append("once")
        end()

    end = emitter.subscribe(once)
    emitter.subscribe(lambda _: got.append("always"))
    emitter.emit(EVENT)
    emitter.emit(EVENT)
    assert got == ["once", "always", "always"]


@pytest.mark.parametrize("kind", [ValueError, SystemExit, GeneratorExit])
def test_the_error_of_a_subscriber_is_not_raised(
    caplog: pytest.LogCaptureFixture, kind: type[BaseException]
) -> None:
    emitter = Emitter()
    got: list[ServerEvent] = []

    def broken(event: ServerEvent) -> None:
        raise kind("meant to fail")

    emitter.subscribe(broken)
    emitter.subscribe(got.append)
    emitter.emit(EVENT)
    assert got == [EVENT]
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("everserve", logging.ERROR)
    assert "meant to fail" in caplog.text
    caplog.clear()


def test_an_event_that_is_logged_is_emitted_too(caplog: pytest.LogCaptureFixture) -> None:
    emitter = Emitter()
    got: list[ServerEvent] = []
    emitter.subscribe(got.append)
    event = Truncated("peer", 512)
    emitter.log(event)
    assert got == [event]
    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (logging.WARNING, str(event))
    assert record.event is event  # type: ignore[attr-defined]
    caplog.clear()


@pytest.mark.parametrize("kind", [KeyboardInterrupt, FiberExit])
def test_what_interrupts_a_subscriber_is_raised(kind: type[BaseException]) -> None:
    def interrupted(event: ServerEvent) -> None:
        raise kind

    emitter = Emitter()
    emitter.subscribe(interrupted)
    with pytest.raises(kind):
        emitter.emit(EVENT)
