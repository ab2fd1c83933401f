"""``events``: frozen objects that read well in a log."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import pytest

from everserve import events
from everserve.events import (
    Accepted,
    Arrived,
    BackedOff,
    DeadlineMissed,
    Draining,
    Dropped,
    Failed,
    Finished,
    Moved,
    Opened,
    Refused,
    RepliesWithheld,
    ServerEvent,
    Serving,
    SessionOverflowed,
    Shed,
    Stalled,
    Stayed,
    Stopped,
    Truncated,
    WorkerLost,
)

PEER = ("127.0.0.1", 9)
FULL = OSError(24, "Too many open files")

LOGGED: list[tuple[ServerEvent, int, str]] = [
    (Serving(PEER), logging.INFO, "serving on ('127.0.0.1', 9)"),
    (Accepted(7, PEER), logging.DEBUG, "accepted #7 from ('127.0.0.1', 9)"),
    (Refused(7, PEER, "full"), logging.INFO, "refused #7 from ('127.0.0.1', 9): full"),
    (
        Refused(7, PEER, "tls", ValueError("no cipher")),
        logging.INFO,
        "refused #7 from ('127.0.0.1', 9): tls (no cipher)",
    ),
    (Shed(7, PEER), logging.INFO, "cut idle #7 from ('127.0.0.1', 9) to make room"),
    (
        DeadlineMissed(7, PEER, "idle_timeout"),
        logging.INFO,
        "cut #7 from ('127.0.0.1', 9): idle_timeout",
    ),
    (Opened(7, PEER), logging.DEBUG, "opened #7 from ('127.0.0.1', 9)"),
    (Finished(7, PEER, 0.25), logging.DEBUG, "finished #7 from ('127.0.0.1', 9) after 0.250 s"),
    (
        Failed(7, PEER, ValueError("no"), False),
        logging.ERROR,
        "failed #7 from ('127.0.0.1', 9): ValueError('no')",
    ),
    (
        BackedOff(FULL, 0.005, 3),
        logging.WARNING,
        "cannot accept, waiting 5 ms: [Errno 24] Too many open files",
    ),
    (
        Truncated(PEER, 512),
        logging.WARNING,
        "datagram from ('127.0.0.1', 9) cut to max_packet_size = 512 bytes",
    ),
    (
        SessionOverflowed(PEER, 3),
        logging.WARNING,
        "dropped 3 datagrams, the last of the session of ('127.0.0.1', 9): peer_queue",
    ),
    (
        Dropped(3),
        logging.WARNING,
        "3 datagrams dropped: the receive buffer was full",
    ),
    (
        RepliesWithheld(PEER, 3),
        logging.WARNING,
        "withheld 3 replies, the last to ('127.0.0.1', 9): reply_budget",
    ),
    (
        Stalled("fiber 3", 0.1, "  here"),
        logging.WARNING,
        "fiber 3 has held the loop for 0.1 s:\n  here",
    ),
    (
        WorkerLost("processes:4", OSError("killed"), True),
        logging.WARNING,
        "processes:4: OSError('killed'): its message runs again",
    ),
    (Moved(7, PEER, 1.5), logging.DEBUG, "moved #7 from ('127.0.0.1', 9) after 1.500 s"),
    (
        Arrived(7, PEER, 0.02),
        logging.DEBUG,
        "took over #7 from ('127.0.0.1', 9) after a pause of 20 ms",
    ),
    (Stayed(7, PEER, "tls"), logging.INFO, "does not move #7 from ('127.0.0.1', 9): tls"),
    (Draining(2.5), logging.INFO, "draining, at most 2.5 s"),
    (Stopped("1 finished"), logging.INFO, "stopped: 1 finished"),
]


@pytest.mark.parametrize(
    ("event", "level", "text"), [pytest.param(*row, id=type(row[0]).__name__) for row in LOGGED]
)
def test_its_text_and_its_level(event: ServerEvent, level: int, text: str) -> None:
    assert str(event) == text
    assert event.level == level


def test_the_table_above_is_complete() -> None:
    assert {type(event).__name__ for event, _, _ in LOGGED} == {
        name for name in events.__all__ if name not in ("ServerEvent", "Subscriber")
    }


@pytest.mark.parametrize("event", [row[0] for row in LOGGED], ids=lambda e: type(e).__name__)
def test_it_is_immutable(event: Any) -> None:
    assert isinstance(event, ServerEvent)
    for field in dataclasses.fields(event):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(event, field.name, None)
    with pytest.raises((AttributeError, TypeError)):
        event.anything = "else"


def test_the_server_itself_logs_the_events_for_operators() -> None:
    logged = {type(event) for event, _, _ in LOGGED if event.logged}
    assert logged == {
        Dropped,
        Failed,
        BackedOff,
        Truncated,
        Stalled,
        SessionOverflowed,
        RepliesWithheld,
        WorkerLost,
    }
    assert all(kind.level >= logging.WARNING for kind in logged)
    assert ServerEvent.logged is False
