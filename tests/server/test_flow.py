"""``server.flow``: a request from accept to close, driven without a server."""

from __future__ import annotations

import logging
import socket
import sys
from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
from tests.parts import NotedHooks, Parts

from everserve.admission.access import AccessRules
from everserve.admission.context import Refusal
from everserve.admission.control import LONGEST_AWAITED, OverloadPolicy
from everserve.errors import TLSConfigError
from everserve.events import Accepted, Failed, Finished, Opened, Refused, Shed
from everserve.fibers.exits import FiberExit
from everserve.lifecycle.stages import ConnectionState
from everserve.server.flow import Flow

pytestmark = pytest.mark.usefixtures("each_engine")


class Request:
    """A request that is not a socket."""


def flow_of(parts: Parts) -> Flow:
    return Flow(
        settings=parts.settings,
        control=parts.control,
        progress=parts.progress,
        connections=parts.connections,
        watchdog=parts.watchdog,
        strategy=parts.strategy,
        life=parts.life,
    )


@pytest.fixture
def parts() -> Parts:
    return Parts()


@pytest.fixture
def flow(parts: Parts) -> Flow:
    return flow_of(parts)


def raising(error: BaseException) -> Callable[..., Any]:
    def fail(*_: Any) -> Any:
        raise error

    return fail


# -- admit -------------------------------------------------------------------------------------


def test_an_admitted_request_is_counted_verified_and_processed(parts: Parts, flow: Flow) -> None:
    hooks, request = NotedHooks(), Request()
    flow.admit(hooks, request, "peer")
    assert hooks.calls == ["verify_request", "process_request"]
    assert [c.peer for c in parts.connections.view] == ["peer"]
    assert parts.recorder.events == [Accepted(1, "peer")]


def test_an_unverified_request_is_refused(parts: Parts, flow: Flow) -> None:
    hooks = NotedHooks(verify_request=lambda *_: False)
    flow.admit(hooks, Request(), "peer")
    assert hooks.calls == ["verify_request", "shutdown_request"]
    assert parts.recorder.of(Refused) == [Refused(1, "peer", "verify_request")]
    assert parts.control.refusals == {"verify_request": 1}


@pytest.mark.parametrize("hook", ["verify_request", "process_request"])
def test_an_exception_ends_only_its_request(parts: Parts, flow: Flow, hook: str) -> None:
    error = ValueError(hook)
    hooks, request = NotedHooks(**{hook: raising(error)}), Request()
    flow.admit(hooks, request, "peer")
    assert hooks.calls[-2:] == ["handle_error", "shutdown_request"]
    assert parts.recorder.events == [Accepted(1, "peer"), Refused(1, "peer", "error", error)]
    assert len(parts.connections) == 0


def test_an_error_of_handle_error_ends_the_request_and_then_the_loop(
    parts: Parts, flow: Flow
) -> None:
    hooks = NotedHooks(
        process_request=raising(ValueError()),
        handle_error=raising(KeyError("strict")),
        shutdown_request=raising(OSError("stuck")),
    )
    with pytest.raises(KeyError, match="strict"):
        flow.admit(hooks, Request(), "peer")
    assert hooks.calls[-1] == "shutdown_request"
    assert len(parts.connections) == 0


def test_a_base_exception_is_raised_and_the_request_shut_down(flow: Flow) -> None:
    hooks = NotedHooks(process_request=raising(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        flow.admit(hooks, Request(), "peer")
    assert hooks.calls[-1] == "shutdown_request"


# -- limits ------------------------------------------------------------------------------------


def test_room_is_checked_only_if_the_rest_must_wait() -> None:
    parts = Parts(max_connections=1)
    flow = flow_of(parts)
    assert flow.has_room()
    request = Request()
    flow.admit(NotedHooks(), request, "peer")
    assert not flow.has_room()
    parts.settings.values.overload = "refuse"
    assert flow.has_room()


@pytest.mark.parametrize("limit", ["max_handshakes", "max_connections"])
def test_a_slow_handshake_makes_room_for_those_that_wait(
    limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = Parts(**{limit: 1})
    flow = flow_of(parts)
    ours, peers = socket.socketpair()
    with ours, peers:
        flow.admit(NotedHooks(), ours, "peer")
        (connection,) = parts.connections.view
        parts.control.handshake_started(connection)
        assert not flow.has_room()
        assert 0.0 < flow.pause() <= LONGEST_AWAITED
        monkeypatch.setattr("everserve.admission.control.LONGEST_AWAITED", 0.0)
        # At ``max_connections`` its end makes the room.
        assert flow.has_room() is (limit == "max_handshakes")
        assert peers.recv(1) == b""
        assert (connection.missed, parts.control.handshakes) == ("max_handshakes", 0)
        assert flow.pause() == 0.0
        parts.progress.handshake_started(connection)  # its step begins only now: it is cut
        assert parts.control.handshakes == 0


def test_a_slow_handshake_is_left_where_no_one_waits() -> None:
    parts = Parts(max_handshakes=1, overload="refuse")
    flow = flow_of(parts)
    flow.admit(NotedHooks(), request := Request(), "peer")
    parts.control.handshake_started(parts.connections.find(request))
    assert (flow.has_room(), flow.pause()) == (True, 0.0)


def test_settings_that_were_set_within_a_batch_count_from_the_next_request() -> None:
    parts = Parts()
    flow = flow_of(parts)
    for look in (flow.has_room, lambda: flow.admit(NotedHooks(), Request(), "peer")):
        look()
        read = parts.settings.readings
        parts.settings.changed = True
        look()
        assert parts.settings.readings == read + 1


@pytest.mark.parametrize(
    ("settings", "room"),
    [
        ({}, 100),
        ({"max_connections": 7}, 7),
        ({"max_connections": 0}, 1),  # has_room() is checked before
        ({"accept_rate": 5.0}, 1),
        ({"max_handshakes": 3}, 3),
        ({"max_connections": 7, "overload": "refuse"}, 100),
    ],
)
def test_how_many_to_accept_at_once(settings: dict[str, Any], room: int) -> None:
    assert flow_of(Parts(**settings)).room(100) == room


@pytest.mark.parametrize("overload", ["refuse", "reset"])
def test_a_connection_above_the_limit_is_refused(overload: str) -> None:
    parts = Parts(max_connections=1, overload=overload)
    flow, hooks, first = flow_of(parts), NotedHooks(), Request()
    flow.admit(hooks, first, "first")
    assert hooks.calls == ["verify_request", "process_request"]
    hooks.calls.clear()
    flow.admit(hooks, Request(), "second")
    assert hooks.calls == ["close_request" if overload == "reset" else "shutdown_request"]
    assert parts.recorder.of(Refused) == [Refused(2, "second", "max_connections")]


def test_a_refused_connection_is_sent_the_message() -> None:
    parts = Parts(max_connections=0, overload="refuse", overload_message=b"busy")
    ours, peers = socket.socketpair()
    with ours, peers:
        flow_of(parts).admit(NotedHooks(), ours, "peer")
        assert peers.recv(100) == b"busy"


def test_a_denied_peer_is_reset_for_every_policy() -> None:
    parts = Parts(access=AccessRules(deny="192.0.2.0/24"), overload=OverloadPolicy(lambda *_: True))
    hooks = NotedHooks()
    flow_of(parts).admit(hooks, Request(), ("192.0.2.1", 1))
    assert hooks.calls == ["close_request"]


@pytest.mark.parametrize("admits", [True, False])
def test_a_custom_policy_decides(admits: bool) -> None:
    asked: list[Any] = []

    def decide(*arguments: Any) -> bool:
        asked.append(arguments)
        return admits

    parts, hooks, request = (
        Parts(max_connections=0, overload=OverloadPolicy(decide)),
        NotedHooks(),
        Request(),
    )
    flow_of(parts).admit(hooks, request, "peer")
    assert asked == [(hooks, request, "peer", "max_connections")]
    assert ("process_request" in hooks.calls) is admits


def test_an_idle_connection_makes_room() -> None:
    parts = Parts(max_connections=1, overload="shed-idle")
    flow = flow_of(parts)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = socket.create_connection(listener.getsockname())
        idle, address = listener.accept()
    with peer, idle:
        flow.admit(NotedHooks(), idle, address)
        hooks = NotedHooks()
        flow.admit(hooks, Request(), "second")
        assert peer.recv(1) == b""
    assert "process_request" in hooks.calls
    assert parts.recorder.of(Shed) == [Shed(1, address)]


# -- where the request runs --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("errors", "calls"),
    [
        ({}, ["finish_request", "shutdown_request"]),
        (
            {"finish_request": ValueError("f")},
            ["finish_request", "handle_error f", "shutdown_request"],
        ),
        (
            {"shutdown_request": ValueError("s")},
            ["finish_request", "shutdown_request", "handle_error s"],
        ),
        (
            {"finish_request": ValueError("f"), "shutdown_request": ValueError("s")},
            ["finish_request", "handle_error f", "shutdown_request", "handle_error s"],
        ),
        ({"finish_request": SystemExit()}, ["finish_request", "shutdown_request"]),
        ({"finish_request": KeyboardInterrupt()}, ["finish_request", "shutdown_request"]),
    ],
)
def test_the_order_in_a_thread_or_a_fiber(
    flow: Flow, errors: dict[str, BaseException], calls: list[str]
) -> None:
    hooks = NotedHooks(**{name: raising(error) for name, error in errors.items()})
    hooks.does["handle_error"] = lambda *_: hooks.calls.append(f"handle_error {sys.exception()}")
    passes = [type(error) for error in errors.values() if not isinstance(error, Exception)]
    with pytest.raises(passes[0]) if passes else nullcontext():
        flow.run(hooks, Request(), "peer")
    assert [call for call in hooks.calls if call != "handle_error"] == calls


def test_a_handle_error_that_raises_still_closes_the_request(flow: Flow) -> None:
    strict = [KeyError("strict")]

    def handle_error(*_: Any) -> None:
        if strict:
            raise strict.pop()

    hooks = NotedHooks(finish_request=raising(ValueError()), handle_error=handle_error)
    flow.run(hooks, Request(), "peer")
    assert hooks.calls == ["finish_request", "handle_error", "shutdown_request", "handle_error"]


def test_an_overridden_finish_request_is_counted(parts: Parts, flow: Flow) -> None:
    request, error = Request(), ValueError()
    connection = parts.progress.accepted(request, "peer")
    flow.run(NotedHooks(finish_request=raising(error)), request, "peer")
    assert parts.recorder.of(Failed) == [Failed(1, "peer", error, False)]
    assert parts.recorder.of(Finished) == []
    assert connection is not None
    assert connection.runner == parts.strategy.here()


def test_the_connection_ends_with_the_run_if_the_hooks_do_not_end_it(
    parts: Parts, flow: Flow
) -> None:
    request = Request()
    connection = parts.progress.accepted(request, "peer")
    flow.run(NotedHooks(), request, "peer")
    assert connection is not None
    assert connection.state is ConnectionState.CLOSED
    assert len(parts.connections) == 0
    assert len(parts.recorder.of(Finished)) == 1


def test_on_the_accept_loop_an_error_is_raised_to_the_caller(parts: Parts, flow: Flow) -> None:
    request = Request()
    parts.progress.accepted(request, "peer")
    flow.run_here(NotedHooks(), request, "peer")
    assert len(parts.connections) == 0
    with pytest.raises(ValueError):
        flow.run_here(NotedHooks(finish_request=raising(ValueError())), Request(), "peer")


def test_the_handler_is_made_with_the_hooks_as_its_server(parts: Parts, flow: Flow) -> None:
    made: list[Any] = []
    hooks, request = NotedHooks(RequestHandlerClass=lambda *args: made.extend(args)), Request()
    connection = parts.progress.accepted(request, "peer")
    flow.finish(hooks, request, "peer")
    assert made == [request, "peer", hooks]
    assert connection is not None
    assert connection.runner == parts.strategy.here()
    assert parts.recorder.of(Opened) == [Opened(1, "peer")]


def test_an_error_of_the_handler_is_reported_and_raised(parts: Parts, flow: Flow) -> None:
    request, error = Request(), ValueError()
    parts.progress.accepted(request, "peer")
    with pytest.raises(ValueError):
        flow.finish(NotedHooks(RequestHandlerClass=raising(error)), request, "peer")
    assert parts.recorder.of(Failed) == [Failed(1, "peer", error, False)]


def test_the_cut_of_a_fiber_is_not_a_failure(parts: Parts, flow: Flow) -> None:
    request = Request()
    parts.progress.accepted(request, "peer")
    with pytest.raises(FiberExit):
        flow.finish(NotedHooks(RequestHandlerClass=raising(FiberExit())), request, "peer")
    assert parts.recorder.of(Failed) == []


def test_the_steps_of_admission_change_the_request_of_the_handler() -> None:
    def step(context: Any) -> None:
        context.client_address = "behind a proxy"

    parts = Parts(admission_steps=(step,))
    made: list[Any] = []
    hooks, request = NotedHooks(RequestHandlerClass=lambda *args: made.extend(args)), Request()
    parts.progress.accepted(request, "peer")
    flow_of(parts).finish(hooks, request, "peer")
    assert made == [request, "behind a proxy", hooks]
    assert parts.recorder.of(Opened) == [Opened(1, "behind a proxy")]


def test_a_step_that_refuses_keeps_the_request_from_its_handler() -> None:
    cause = OSError("bad header")

    def refuse(context: Any) -> None:
        raise Refusal("proxy") from cause

    parts, hooks, request = Parts(admission_steps=(refuse,)), NotedHooks(), Request()
    parts.progress.accepted(request, "peer")
    flow_of(parts).finish(hooks, request, "peer")
    assert hooks.calls == []
    assert parts.recorder.of(Refused) == [Refused(1, "peer", "proxy", cause)]


def test_a_request_without_an_entry_runs_without_events(parts: Parts, flow: Flow) -> None:
    hooks = NotedHooks()
    flow.finish(hooks, "from elsewhere", "peer")
    flow.shut_down(hooks, "from elsewhere")
    assert hooks.calls == ["RequestHandlerClass", "close_request"]
    assert parts.recorder.events == []


def test_start_tls_without_tls(flow: Flow) -> None:
    with pytest.raises(TLSConfigError):
        flow.start_tls(NotedHooks(), Request(), "peer")


# -- the end -----------------------------------------------------------------------------------


@pytest.mark.parametrize("gone", [False, True])
def test_the_stream_is_ended_unless_the_peer_has_reset_it(
    parts: Parts, flow: Flow, gone: bool
) -> None:
    ended: list[int] = []
    request = SimpleNamespace(shutdown=ended.append)
    connection = parts.progress.accepted(request, "peer")
    assert connection is not None
    connection.gone = gone
    hooks = NotedHooks()
    flow.shut_down(hooks, request, is_stream=True)
    assert ended == ([] if gone else [socket.SHUT_WR])
    assert hooks.calls == ["close_request"]
    assert len(parts.connections) == 0


def test_an_end_that_fails_does_not_prevent_the_close(flow: Flow) -> None:
    hooks = NotedHooks()
    flow.shut_down(hooks, SimpleNamespace(shutdown=raising(OSError())), is_stream=True)
    assert hooks.calls == ["close_request"]


def test_a_close_that_fails_ends_the_connection(parts: Parts, flow: Flow) -> None:
    request = Request()
    parts.progress.accepted(request, "peer")
    with pytest.raises(ValueError):
        flow.shut_down(NotedHooks(close_request=raising(ValueError())), request)
    assert len(parts.connections) == 0


def test_the_last_request_closes_a_listener_that_was_kept_for_it(parts: Parts, flow: Flow) -> None:
    parts.life.keeps_listener = True
    hooks: Any = NotedHooks()
    first, second = Request(), Request()
    for request in (first, second):
        parts.progress.accepted(request, "peer")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as hooks.socket:
        flow.close(hooks, first)
        assert hooks.socket.fileno() != -1
        flow.close(hooks, second)
        assert hooks.socket.fileno() == -1
    assert hooks.calls == []
    assert not parts.life.keeps_listener


def test_an_error_is_logged_with_the_peer_behind_the_proxy(
    parts: Parts, flow: Flow, caplog: pytest.LogCaptureFixture
) -> None:
    request = Request()
    connection = parts.progress.accepted(request, "proxy")
    assert connection is not None
    connection.peer = "client"
    try:
        raise ValueError("wrong")
    except ValueError:
        flow.log_error(request, "proxy")
    flow.log_error(request, "proxy")
    assert [(r.levelno, r.getMessage()) for r in caplog.records] == [
        (logging.ERROR, "failed #1 from 'client': ValueError('wrong')"),
        (logging.ERROR, "request from 'client' failed"),
    ]


def test_a_peer_that_has_disconnected_is_a_debug_line(
    parts: Parts, flow: Flow, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "everserve")
    ours, peers = socket.socketpair()
    connection = parts.progress.accepted(ours, "peer")
    assert connection is not None
    peers.close()
    ours.close()
    try:
        raise ConnectionResetError
    except ConnectionResetError:
        connection.tls = SimpleNamespace(broken=True)  # type: ignore[assignment]
        flow.log_error(ours, "peer")
    (record,) = caplog.records
    assert (record.levelno, record.exc_info) == (logging.DEBUG, None)
