"""``server.acceptor``: accepts one or many requests from the listener; without a server."""

from __future__ import annotations

import errno
import sys
from typing import Any

import pytest
from tests.parts import NotedHooks, Parts

from everserve.events import BackedOff
from everserve.lifecycle.state import ServerState
from everserve.server.acceptor import BATCH, Acceptor
from everserve.server.listener import Listener
from everserve.sockets.accepting import BackOff


class NotedFlow:
    """A fake ``Flow``: records the admitted requests; a test sets the room."""

    def __init__(self) -> None:
        self.admitted: list[tuple[Any, Any]] = []
        self.full = False
        self.most = BATCH

    def begin(self, **of_run: Any) -> None:
        """A run begins."""

    def has_room(self) -> bool:
        return not self.full

    def room(self, most: int) -> int:
        return min(most, self.most)

    def pause(self) -> float:
        return 0.25

    def admit(self, hooks: Any, request: Any, client_address: Any) -> None:
        self.admitted.append((request, client_address))


class Batches(Listener):
    accepts_streams = True

    def takes_batches(self, get_request: Any) -> bool:
        return True


class Scene:
    """An acceptor and the objects around it; the clock of its back-off does not move."""

    def __init__(self) -> None:
        self.parts = Parts()
        self.parts.life.begin()
        self.flow: Any = NotedFlow()
        self.datagrams: Any = None
        self.acceptor = Acceptor(
            settings=self.parts.settings,
            flow=self.flow,
            datagrams=self.datagrams,
            strategy=self.parts.strategy,
            life=self.parts.life,
            emitter=self.parts.emitter,
        )
        self.acceptor.back_off = BackOff(lambda: 0.0)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def fails(error: BaseException) -> Any:
    def get_request() -> Any:
        raise error

    return get_request


def test_one_request_is_admitted(scene: Scene) -> None:
    hooks = NotedHooks(get_request=lambda: ("request", "peer"))
    assert scene.acceptor.take(hooks)
    assert scene.flow.admitted == [("request", "peer")]


def test_the_settings_are_read_if_no_loop_has_read_them(scene: Scene) -> None:
    hooks = NotedHooks(get_request=lambda: ("request", "peer"))
    scene.acceptor.take(hooks)
    assert scene.parts.settings.readings == 1
    scene.acceptor.listener = Listener()
    scene.acceptor.take(hooks)
    assert scene.parts.settings.readings == 1


def test_many_are_taken_until_none_is_left(scene: Scene) -> None:
    left = [True] * 3
    hooks = NotedHooks(_handle_request_noblock=lambda: bool(left) and left.pop())
    scene.acceptor.begin(hooks, Batches())
    scene.acceptor.take_many(hooks)
    assert hooks.calls == ["_handle_request_noblock"] * 4


def test_many_are_taken_straight_where_the_hook_is_the_default(scene: Scene) -> None:
    waiting = [("two", 2), ("one", 1)]
    hooks = NotedHooks(get_request=lambda: waiting.pop() if waiting else fails(BlockingIOError())())
    hooks._handle_request_noblock = NotedHooks.service_actions.__get__(hooks)  # a default
    scene.acceptor.begin(hooks, Batches())
    scene.acceptor.take_many(hooks)
    assert scene.flow.admitted == [("one", 1), ("two", 2)]
    assert hooks.calls == ["get_request"] * 3


def test_many_are_no_more_than_a_batch(scene: Scene) -> None:
    hooks = NotedHooks()
    scene.acceptor.begin(hooks, Batches())
    scene.acceptor.take_many(hooks)
    assert len(hooks.calls) == BATCH


def test_of_a_listener_that_may_block_only_one_is_taken(scene: Scene) -> None:
    hooks = NotedHooks()
    scene.acceptor.take_many(hooks)
    assert len(hooks.calls) == 1


@pytest.mark.parametrize("end", ["full", "suspended", "shut down"])
def test_many_end_when_no_more_are_to_be_taken(scene: Scene, end: str) -> None:
    def take() -> bool:
        if len(hooks.calls) == 2:
            if end == "full":
                scene.flow.full = True
            elif end == "suspended":
                scene.parts.life.suspend(True)
            else:
                scene.parts.life.shutdown_requested = True
        return True

    hooks = NotedHooks(_handle_request_noblock=take)
    scene.acceptor.begin(hooks, Batches())
    scene.acceptor.take_many(hooks)
    assert len(hooks.calls) == 2


def test_a_strategy_with_its_own_sockets_accepts_a_batch(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []

    def accept_many(descriptor: int, limit: int) -> list[tuple[Any, Any]]:
        asked.append((descriptor, limit))
        return [("one", 1), ("two", 2)] if len(asked) == 1 else []

    monkeypatch.setattr(type(scene.parts.strategy), "accept_many", staticmethod(accept_many))
    hooks = NotedHooks(fileno=lambda: 4711)
    scene.acceptor.begin(hooks, Batches())
    scene.flow.most = 7
    assert scene.acceptor.take(hooks)
    assert not scene.acceptor.take(hooks)
    assert asked == [(4711, 7)] * 2
    assert scene.flow.admitted == [("one", 1), ("two", 2)]
    scene.acceptor.listener = Listener()  # get_request is overridden: it is called then
    hooks = NotedHooks(get_request=lambda: ("three", 3))
    assert scene.acceptor.take(hooks)
    assert scene.flow.admitted[-1] == ("three", 3)


@pytest.mark.parametrize("batch", [False, True])
def test_without_descriptors_it_backs_off(
    scene: Scene, batch: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail = fails(OSError(errno.EMFILE, "Too many open files"))
    hooks = NotedHooks(get_request=fail)
    if batch:
        monkeypatch.setattr(
            type(scene.parts.strategy), "accept_many", staticmethod(lambda *_: fail())
        )
        scene.acceptor.begin(hooks, Batches())
    assert not scene.acceptor.take(hooks)
    assert not scene.acceptor.can_accept()
    assert scene.acceptor.pause() == BackOff.first
    (event,) = scene.parts.recorder.of(BackedOff)
    assert event.error.errno == errno.EMFILE


def test_a_successful_accept_ends_the_back_off(scene: Scene) -> None:
    scene.acceptor.back_off.fail()
    scene.acceptor.take(NotedHooks(get_request=lambda: ("request", "peer")))
    assert scene.acceptor.can_accept()
    assert scene.acceptor.pause() == 0.25  # that of the rate limit


def test_an_unusable_listener_ends_the_loop(scene: Scene) -> None:
    hooks = NotedHooks(get_request=fails(OSError(errno.EBADF, "Bad file descriptor")))
    with pytest.raises(OSError, match="Bad file descriptor"):
        scene.acceptor.take(hooks)
    scene.parts.life.move(ServerState.STOPPED)  # it was closed on purpose
    assert not scene.acceptor.take(hooks)


def test_a_connection_that_has_ended_is_not_reported(scene: Scene) -> None:
    hooks = NotedHooks(get_request=fails(ConnectionAbortedError(errno.ECONNABORTED, "aborted")))
    assert not scene.acceptor.take(hooks)
    assert scene.acceptor.can_accept()
    assert scene.parts.recorder.events == []
    assert hooks.calls == ["get_request"]


def test_other_errors_of_get_request_are_passed_to_handle_error(scene: Scene) -> None:
    notes: list[Any] = []

    def handle_error(request: Any, client_address: Any) -> None:
        error = sys.exception()
        assert error is not None
        notes.append((request, client_address, error.__notes__))

    hooks = NotedHooks(get_request=fails(ValueError("empty")), handle_error=handle_error)
    assert not scene.acceptor.take(hooks)
    assert scene.acceptor.pause() == BackOff.first
    note = "raised by NotedHooks.get_request(), before there was a request"
    assert notes == [(None, None, [note])]


def test_while_there_is_no_room_the_loop_is_gated(scene: Scene) -> None:
    scene.flow.full = True
    assert not scene.acceptor.can_accept()
    assert scene.parts.life.gated
    scene.flow.full = False
    assert scene.acceptor.can_accept()
    assert not scene.parts.life.gated
