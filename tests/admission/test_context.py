"""``admission.context``: the object that the steps of admission share, and the limit of a stage."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from everserve.admission.context import Refusal, RequestContext
from everserve.admission.watchdog import Deadline
from everserve.errors import ProxyHeaderError


class FakeWatchdog:
    """Keeps the watched deadlines; a test checks them at the time ``now``."""

    def __init__(self) -> None:
        self.watched: dict[Deadline, float] = {}

    def watch(self, deadline: Deadline, when: float) -> None:
        self.watched[deadline] = when

    def forget(self, deadline: Deadline) -> None:
        self.watched.pop(deadline, None)

    def look(self) -> None:
        for deadline, when in tuple(self.watched.items()):
            deadline.due(when)


class FakeProgress:
    """Records the missed deadline, as ``Progress`` does on the connection."""

    def __init__(self) -> None:
        self.missed: list[str] = []

    def deadline_missed(self, connection: Any, name: str) -> None:
        self.missed.append(name)
        if connection is not None:
            connection.missed = name

    def handshake_started(self, connection: Any) -> None:
        raise NotImplementedError

    def handshake_done(self, connection: Any) -> None:
        raise NotImplementedError


class FakeTLS:
    def __init__(self) -> None:
        self.notified: list[dict[str, Any]] = []

    def close_notify(self, timeout: float, *, last: bool) -> None:
        self.notified.append({"timeout": timeout, "last": last})


@pytest.fixture
def watchdog() -> FakeWatchdog:
    return FakeWatchdog()


@pytest.fixture
def progress() -> FakeProgress:
    return FakeProgress()


@pytest.fixture
def make(watchdog: FakeWatchdog, progress: FakeProgress) -> Callable[..., RequestContext]:
    def make(connection: Any = None) -> RequestContext:
        parts: Any = {"settings": None, "watchdog": watchdog, "sockets": None}
        return RequestContext("request", "peer", connection=connection, progress=progress, **parts)

    return make


def connection(**more: Any) -> Any:
    return SimpleNamespace(**{"missed": None, "failed": False, "tls": None} | more)


Make = Callable[..., RequestContext]


def test_steps_are_taken_in_order_until_one_refuses(make: Make) -> None:
    taken: list[str] = []

    def first(context: RequestContext) -> None:
        taken.append("first")
        context.request = "wrapped"

    def second(context: RequestContext) -> None:
        taken.append(context.request)
        raise Refusal("impolite")

    context = make()
    with pytest.raises(Refusal) as raised:
        context.take((first, second, first))
    assert (taken, raised.value.reason) == (["first", "wrapped"], "impolite")


def test_a_stage_that_is_in_time(make: Make, watchdog: FakeWatchdog) -> None:
    watched: list[int] = []
    make().stage("proxy_timeout", 5.0, lambda: watched.append(len(watchdog.watched)))
    assert (watched, watchdog.watched) == ([1], {})


@pytest.mark.parametrize("error", [ConnectionResetError, ssl.SSLError, ProxyHeaderError, EOFError])
def test_a_stage_that_fails_is_a_refusal(
    make: Make, watchdog: FakeWatchdog, error: type[Exception]
) -> None:
    def work() -> None:
        raise error("meant to fail")

    with pytest.raises(Refusal) as raised:
        make(connection()).stage("handshake_timeout", 5.0, work)
    assert raised.value.reason == "handshake"
    assert isinstance(raised.value.__cause__, error)
    assert not watchdog.watched


@pytest.mark.parametrize("entry", [True, False])
def test_a_stage_that_takes_too_long(
    make: Make, watchdog: FakeWatchdog, progress: FakeProgress, entry: bool
) -> None:
    def work() -> None:
        watchdog.look()  # it cuts the connection
        raise ConnectionError

    with pytest.raises(Refusal) as raised:
        make(connection() if entry else None).stage("proxy_timeout", 5.0, work)
    assert raised.value.reason == ("proxy_timeout" if entry else "proxy")
    assert progress.missed == ["proxy_timeout"]


def test_a_fault_of_the_server_is_not_a_refusal(make: Make, watchdog: FakeWatchdog) -> None:
    with pytest.raises(ZeroDivisionError):
        make().stage("proxy_timeout", 5.0, lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    assert not watchdog.watched


def test_an_armed_deadline_is_watched_until_leave(make: Make, watchdog: FakeWatchdog) -> None:
    class Never:
        def due(self, now: float) -> None: ...

    context = make()
    one, two = Never(), Never()
    context.arm(one, 1.0)
    context.arm(two, 2.0)
    assert watchdog.watched == {one: 1.0, two: 2.0}
    context.leave()
    context.leave()
    assert not watchdog.watched


@pytest.mark.parametrize("failed", [True, False])
def test_only_a_complete_answer_ends_in_order(make: Make, failed: bool) -> None:
    tls = FakeTLS()
    make(connection(tls=tls, failed=failed)).leave()
    assert len(tls.notified) == (0 if failed else 1)
    assert all(call["last"] and call["timeout"] > 0 for call in tls.notified)


def test_leave_works_without_an_entry(make: Make) -> None:
    make(None).leave()
    make(connection()).leave()
