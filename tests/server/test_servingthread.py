"""``server.servingthread``: a thread that serves, and re-raises the error of serving."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from tests.clients import LIMIT, Background

from everserve.lifecycle.state import LifeCycle
from everserve.server.servingthread import ServingThread


def serving_with(lives: list[LifeCycle], end: threading.Event) -> Callable[[], None]:
    def serve() -> None:
        for life in lives:
            life.announce()
        assert end.wait(LIMIT)

    return serve


def test_it_starts_when_every_server_accepts() -> None:
    lives, end, go_on = [LifeCycle(), LifeCycle()], threading.Event(), threading.Event()

    def serve() -> None:
        lives[0].announce()
        assert go_on.wait(LIMIT)
        lives[1].announce()
        assert end.wait(LIMIT)

    thread = ServingThread(serve, lives, "two servers")
    assert (thread.name, thread.daemon) == ("two servers", True)
    starting = Background(thread.start_serving)
    starting.join(0.02)
    assert starting.is_alive()
    go_on.set()
    starting.result()
    assert thread.is_alive()
    end.set()
    thread.join_and_raise(LIMIT)
    assert not thread.is_alive()


def test_a_failure_to_start_is_raised_to_the_starter() -> None:
    def fail() -> None:
        raise OSError("cannot listen")

    thread = ServingThread(fail, [LifeCycle()], "fails")
    with pytest.raises(OSError, match="cannot listen"):
        thread.start_serving()
    thread.join_and_raise(LIMIT)  # once


def test_a_server_that_ends_at_once_has_started() -> None:
    thread = ServingThread(lambda: None, [LifeCycle()], "a shutdown was remembered")
    thread.start_serving()
    thread.join_and_raise(LIMIT)


@pytest.mark.parametrize("kind", [ZeroDivisionError, SystemExit, KeyboardInterrupt])
def test_a_later_error_is_raised_at_the_end(kind: type[BaseException]) -> None:
    life, end = LifeCycle(), threading.Event()
    serve = serving_with([life], end)

    def serve_and_fail() -> None:
        serve()
        raise kind

    thread = ServingThread(serve_and_fail, [life], "fails later")
    thread.start_serving()
    end.set()
    with pytest.raises(kind):
        thread.join_and_raise(LIMIT)


def test_an_error_of_a_server_that_was_up_is_raised_at_the_end_even_if_it_came_at_once() -> None:
    life = LifeCycle()

    def serve() -> None:
        life.announce()
        life.end()
        raise ZeroDivisionError

    class Slow(ServingThread):
        def start(self) -> None:
            super().start()
            self.join(LIMIT)

    thread = Slow(serve, [life], "fails at once")
    thread.start_serving()
    with pytest.raises(ZeroDivisionError):
        thread.join_and_raise(LIMIT)


def test_a_thread_that_does_not_end_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("everserve.server.servingthread.LAST_WAIT", 0.0)
    life, end = LifeCycle(), threading.Event()
    thread = ServingThread(serving_with([life], end), [life], "stuck")
    thread.start_serving()
    thread.join_and_raise(0.001)
    assert thread.is_alive()
    end.set()
    thread.join(LIMIT)
