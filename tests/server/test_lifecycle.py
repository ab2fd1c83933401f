"""``server.lifecycle``: one state, changed from anywhere."""

from __future__ import annotations

import pytest
from tests.clients import Background

from everserve.errors import AlreadyServingError
from everserve.lifecycle.state import ServerState


def test_a_run() -> None:
    life = Life()
    assert (life.state, life.session, life.serving_here()) == (ServerState.READY, None, False)
    assert life.begin() is True
    assert (life.state, life.accepting) == (ServerState.SERVING, True)
    assert life.session is not None
    assert life.serving_here()
    assert not life.serving_elsewhere()
    life.end()
    assert (life.state, life.session, life.serving_here()) == (ServerState.READY, None, False)


def test_a_run_of_another_thread() -> None:
    life = Life()
    Background(life.begin).result()
    assert not life.serving_here()
    assert life.serving_elsewhere()
    life.end()
    assert not life.serving_elsewhere()


def test_each_run_is_another_session() -> None:
    life = Life()
    life.begin()
    first = life.session
    life.end()
    life.begin()
    assert life.session is not first


def test_one_run_at_a_time() -> None:
    life = Life()
    life.begin()
    with pytest.raises(AlreadyServingError, match="runs already"):
        life.begin()
    assert life.state is ServerState.SERVING


def test_whoever_sees_the_session_sees_the_state() -> None:
    class Watched(Life):
        def __setattr__(self, name: str, value: object) -> None:
            if name == "session" and value is not None:
                seen.append(self.state)
            super().__setattr__(name, value)

    seen: list[ServerState] = []
    Watched().begin()
    assert seen == [ServerState.SERVING]


def test_a_shutdown_is_remembered_once() -> None:
    life = Life()
    life.shutdown_requested = True
    assert life.begin() is False
    assert life.state is ServerState.READY
    assert life.begin() is True
    life.shutdown_requested = True
    assert not life.accepting
    life.end()
    assert life.begin() is True


def test_a_shutdown_can_be_taken_back() -> None:
    life = Life()
    life.shutdown_requested = True
    life.shutdown_requested = False
    assert life.begin() is True


def test_suspend_and_resume() -> None:
    life = Life()
    life.begin()
    life.suspend(True)
    assert (life.state, life.accepting) == (ServerState.SUSPENDED, True)
    life.suspend(False)
    assert (life.state, life.accepting) == (ServerState.SERVING, True)


def test_suspend_is_remembered() -> None:
    life = Life()
    life.suspend(True)
    assert life.state is ServerState.READY
    life.begin()
    assert life.state is ServerState.SUSPENDED
    life.end()
    assert life.state is ServerState.READY


@pytest.mark.parametrize("state", [ServerState.DRAINING, ServerState.STOPPED])
def test_suspend_does_not_undo_a_stop(state: ServerState) -> None:
    life = Life()
    life.begin()
    life.move(state)
    life.suspend(False)
    assert life.state is state
    life.end()
    assert life.state is state


def test_changes_wake_the_accept_loop() -> None:
    life = Life()
    life.wake()  # nobody waits: nothing is made for it
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


def test_the_end_rings_the_bell() -> None:
    life = Life()
    life.begin()
    session = life.session
    waiter = Background(life.bell.wait_until, lambda: life.session is not session)
    life.end()
    assert waiter.result() is True
