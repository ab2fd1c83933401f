"""``lifecycle.state``: one state, changed from anywhere."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
from tests.clients import Background

import everserve
from everserve.errors import AlreadyServingError, ServerClosedError
from everserve.lifecycle.state import LifeCycle, ServerState


def test_a_run() -> None:
    life = LifeCycle()
    assert (life.state, life.session, life.serving_here()) == (ServerState.READY, None, False)
    assert life.begin() is True
    assert (life.state, life.accepting) == (ServerState.SERVING, True)
    assert life.session is not None
    assert life.serving_here()
    assert not life.serving_elsewhere()
    life.end()
    assert (life.state, life.session, life.serving_here()) == (ServerState.READY, None, False)


def test_a_run_of_another_thread() -> None:
    life = LifeCycle()
    Background(life.begin).result()
    assert not life.serving_here()
    assert life.serving_elsewhere()
    life.end()
    assert not life.serving_elsewhere()


def test_each_run_is_another_session() -> None:
    life = LifeCycle()
    life.begin()
    first = life.session
    life.end()
    life.begin()
    assert life.session is not first


def test_one_run_at_a_time() -> None:
    life = LifeCycle()
    life.begin()
    with pytest.raises(AlreadyServingError, match="runs already"):
        life.begin()
    assert life.state is ServerState.SERVING


class AtSession(LifeCycle):
    """Calls ``do()`` when its session is set: simulates another thread at that moment."""

    def __init__(self, do: Callable[[LifeCycle], object]) -> None:
        self.do = do
        super().__init__()

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        if name == "session" and value is not None:
            self.do(self)


def test_a_stop_that_begins_at_this_moment_is_not_undone() -> None:
    life = AtSession(lambda life: life.begin_stop(SimpleNamespace(report=None)))
    assert life.begin() is True
    assert (life.state, life.accepting) == (ServerState.DRAINING, False)


def test_a_shutdown_at_this_moment_is_noticed() -> None:
    def shut_down(life: LifeCycle) -> None:
        life.shutdown_requested = True

    life = AtSession(shut_down)
    assert life.begin() is False
    assert (life.state, life.session) == (ServerState.READY, None)


def test_one_stop() -> None:
    life = LifeCycle()
    assert life.stop is None
    first, second = SimpleNamespace(report=None), SimpleNamespace(report=None)
    assert life.begin_stop(first) is first
    assert life.begin_stop(second) is first
    assert life.stop is first
    life.forget_stop()
    assert life.stop is None


def test_a_stop_that_is_over_does_not_hinder_the_next_run() -> None:
    life = LifeCycle()
    life.begin_stop(SimpleNamespace(report="done"))
    life.close()
    assert life.begin() is True
    assert life.state is ServerState.SERVING


def test_an_early_shutdown_counts_once() -> None:
    life = LifeCycle()
    life.shutdown_requested = True
    assert life.begin() is False
    assert life.state is ServerState.READY
    assert life.begin() is True
    life.shutdown_requested = True
    assert not life.accepting
    life.end()
    assert life.begin() is True


def test_a_shutdown_can_be_taken_back() -> None:
    life = LifeCycle()
    life.shutdown_requested = True
    life.shutdown_requested = False
    assert life.begin() is True


def test_suspend_and_resume() -> None:
    life = LifeCycle()
    life.begin()
    life.suspend(True)
    assert (life.state, life.accepting) == (ServerState.SUSPENDED, True)
    life.suspend(False)
    assert (life.state, life.accepting) == (ServerState.SERVING, True)


def test_an_early_suspend_counts() -> None:
    life = LifeCycle()
    life.suspend(True)
    assert life.state is ServerState.READY
    life.begin()
    assert life.state is ServerState.SUSPENDED
    life.end()
    assert life.state is ServerState.READY


@pytest.mark.parametrize("state", [ServerState.DRAINING, ServerState.STOPPED])
def test_suspend_does_not_undo_a_stop(state: ServerState) -> None:
    life = LifeCycle()
    life.begin()
    life.move(state)
    life.suspend(False)
    assert life.state is state
    life.end()
    assert life.state is state


def test_a_forked_child_that_serves_by_itself_has_a_wake_up_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    life = LifeCycle()
    life.prepare()
    parents = life.wakeup()
    monkeypatch.setattr("everserve.sockets.wakeup.getpid", lambda: -1)
    assert life.wakeup() is not parents
    assert life.wakeup() is life.wakeup()


def test_changes_wake_the_accept_loop() -> None:
    life = LifeCycle()
    life.wake()  # no waiter: no wake-up is made
    assert life._wakeup is None
    wakeup = life.wakeup()
    assert life.wakeup() is wakeup
    woken = []
    wakeup.wake = lambda: woken.append(life.state)  # type: ignore[method-assign]
    life.begin()
    life.suspend(True)
    life.shutdown_requested = True
    life.close()
    assert woken == [ServerState.SUSPENDED, ServerState.SUSPENDED, ServerState.STOPPED]
    assert life._wakeup is None


def test_the_end_notifies() -> None:
    life = LifeCycle()
    life.begin()
    session = life.session
    waiter = Background(life.notifier.wait_until, lambda: life.session is not session)
    life.end()
    assert waiter.result() is True


def test_an_announcement_notifies_and_is_counted() -> None:
    life = LifeCycle()
    waiter = Background(life.notifier.wait_until, lambda: life.announcements)
    life.begin()
    life.announce()
    assert waiter.result()
    life.end()
    assert life.announcements == 1


def test_taking_is_false_while_suspended() -> None:
    life = LifeCycle()
    assert not life.taking
    life.begin()
    assert life.taking
    life.suspend(True)
    assert (life.taking, life.accepting) == (False, True)


@pytest.mark.parametrize(
    ("state", "draining"),
    [(state, state.value in ("draining", "stopped")) for state in ServerState],
)
def test_draining(state: ServerState, draining: bool) -> None:
    life = LifeCycle()
    life.move(state)
    assert life.draining is draining


def test_the_runner_identifies_the_serving_thread() -> None:
    here = [1]
    life = LifeCycle(lambda: here[0])
    life.begin()
    assert life.serving_here()
    here[0] = 2
    assert life.serving_elsewhere()


@pytest.mark.parametrize("end", ["stop", "server_close"])
def test_serving_a_closed_server_leaves_it_stopped(end: str) -> None:
    server = everserve.TCPServer(("127.0.0.1", 0), everserve.BaseRequestHandler)
    getattr(server, end)()
    with pytest.raises(ServerClosedError):
        server.serve_forever()
    assert server.state is ServerState.STOPPED
