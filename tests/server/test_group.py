"""``server.group``: several servers with one thread and one accept loop."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.certificates import Certificates
from tests.clients import LIMIT, Background, ask, connect, read_all
from tests.scenes import LOOPBACK, Echo, EventRecorder, Gate, Held

from everserve import fibers
from everserve.combos import (
    FiberTCPServer,
    FiberUDPServer,
    ForkingTCPServer,
    ThreadingTCPServer,
    ThreadPoolTCPServer,
)
from everserve.errors import AlreadyServingError, ServerClosedError
from everserve.events import Draining, Finished, Opened, Serving, Stopped
from everserve.lifecycle.state import ServerState
from everserve.server.group import ServerGroup
from everserve.server.tcp import TCPServer
from everserve.server.udp import UDPServer
from everserve.sockets.tls import TLS

STREAMS = [TCPServer, ThreadingTCPServer, ThreadPoolTCPServer, FiberTCPServer]


def group_of(*handlers: Any, kind: type[TCPServer] = TCPServer) -> ServerGroup:
    return ServerGroup([kind(LOOPBACK, handler) for handler in handlers])


def says(word: bytes) -> Callable[..., None]:
    return lambda request, *_: request.sendall(word)


@pytest.mark.parametrize("kind", STREAMS)
def test_each_server_has_its_handler(kind: type[TCPServer]) -> None:
    group = group_of(says(b"one"), says(b"other"), kind=kind)
    with group.running() as addresses:
        assert addresses == group.addresses
        assert len(set(addresses)) == 2
        assert [ask(address, b"") for address in addresses] == [b"one", b"other"]
        assert [s.state for s in group.servers] == [ServerState.SERVING] * 2
    assert [s.state for s in group.servers] == [ServerState.STOPPED] * 2


def test_one_thread_serves_all() -> None:
    threads: set[str] = set()
    group = group_of(*[lambda *_: threads.add(threading.current_thread().name)] * 3)
    with group.running() as addresses:
        for address in addresses:
            assert ask(address, b"") == b""
    (name,) = threads
    assert name.startswith("ServerGroup (")


def test_fibers_of_one_server_wake_those_of_another() -> None:
    waiting: list[Any] = []

    def waits(request: Any, *_: Any) -> None:
        event = fibers.Event()
        waiting.append(event)
        request.sendall(b"ready")
        event.wait()
        request.sendall(b"woken")

    def wakes(*_: Any) -> None:
        waiting.pop().set()

    with group_of(waits, wakes, kind=FiberTCPServer).running() as (first, second):
        with connect(first) as client:
            assert client.recv(5) == b"ready"
            assert ask(second, b"") == b""
            assert read_all(client) == b"woken"


def test_streams_and_datagrams_together() -> None:
    def answer(request: Any, client_address: Any, server: Any) -> None:
        request[1].sendto(request[0].upper(), client_address)

    servers = [FiberTCPServer(LOOPBACK, Echo), FiberUDPServer(LOOPBACK, answer)]
    with ServerGroup(servers).running() as (stream, datagram):
        assert ask(stream) == b"ping"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(LIMIT)
            client.sendto(b"ping", datagram)
            assert client.recv(100) == b"PING"


def test_servers_of_different_strategies_together() -> None:
    servers = [kind(LOOPBACK, Echo) for kind in STREAMS] + [UDPServer(LOOPBACK, says(b""))]
    with ServerGroup(servers).running() as addresses:
        for address in addresses[: len(STREAMS)]:
            assert ask(address) == b"ping"


def test_the_end_of_one_does_not_end_the_others() -> None:
    group = group_of(Echo, Echo)
    one, other = group.servers
    with group.running() as addresses:
        one.stop()
        assert one.state is ServerState.STOPPED
        with pytest.raises(ConnectionRefusedError):
            connect(addresses[0])
        assert ask(addresses[1]) == b"ping"
        assert other.state is ServerState.SERVING


def test_serve_forever_returns_when_the_last_has_ended() -> None:
    group, recorder = group_of(Echo, Echo), EventRecorder()
    group.subscribe(recorder)
    thread = Background(group.serve_forever)
    recorder.wait_for(Serving, 2)
    group.servers[0].shutdown()
    assert ask(group.addresses[1]) == b"ping"
    assert thread.is_alive()
    group.servers[1].shutdown()
    thread.result()
    thread = Background(group.serve_forever)
    assert [ask(address) for address in group.addresses] == [b"ping"] * 2
    group.shutdown()
    thread.result()
    assert [s.state for s in group.servers] == [ServerState.READY] * 2
    group.server_close()


def test_an_early_shutdown_counts_for_each() -> None:
    with group_of(Echo, Echo) as group:
        group.shutdown()
        Background(group.serve_forever).result()
    with pytest.raises(ServerClosedError):
        group.serve_forever()


def test_a_shutdown_leaves_nothing_for_the_next_run() -> None:
    with group_of(Echo, Echo) as group:
        for _ in range(3):
            recorder = EventRecorder()
            end = group.subscribe(recorder)
            thread = Background(group.serve_forever)
            recorder.wait_for(Serving, 2)
            assert [ask(address) for address in group.addresses] == [b"ping"] * 2
            group.shutdown()
            thread.result()
            end()


def test_a_handler_may_shut_the_group_down() -> None:
    group = group_of(lambda *_: group.shutdown(), Echo)
    with group:
        thread = Background(group.serve_forever)
        assert ask(group.addresses[0], b"") == b""
        thread.result()


def test_it_cannot_serve_twice() -> None:
    group = group_of(Echo, Echo)
    with group.running():
        for call in (group.serve_forever, group.servers[1].serve_forever):
            with pytest.raises(AlreadyServingError):
                call()
        assert ask(group.addresses[1]) == b"ping"


def test_a_failure_to_start_one_is_raised_before_the_block_and_none_serves() -> None:
    group = group_of(Echo, Echo)
    group.servers[1].server_close()
    with pytest.raises(ServerClosedError), group.running():
        raise AssertionError("not reached")
    assert group.servers[0].state is ServerState.READY
    assert ask_serving(group.servers[0]) == b"ping"


def ask_serving(server: Any) -> bytes:
    """Whether a server can still serve by itself."""
    with server.running() as address:
        return ask(address)


# -- stop --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", STREAMS[1:])
def test_one_grace_for_all_and_one_report(kind: type[TCPServer]) -> None:
    group, recorder = group_of(Held, Held, kind=kind), EventRecorder()
    group.subscribe(recorder)
    with group.running() as (one, other):
        with connect(one) as first, connect(other) as second:
            assert first.recv(5) == second.recv(5) == b"ready"
            stop = Background(group.stop, 3600)
            recorder.wait_for(Draining, 2)
            for client in (first, second):
                client.sendall(b"go on")
                assert read_all(client) == b"bye"
            report = stop.result()
    assert (report.finished, report.cut, report.unfinished) == (2, (), ())
    assert len(recorder.of(Stopped)) == 2


def test_after_the_grace_the_connections_of_all_are_cut() -> None:
    group = group_of(Held, Held, kind=ThreadingTCPServer)
    with group.running() as (one, other):
        with connect(one) as first, connect(other) as second:
            assert first.recv(5) == second.recv(5) == b"ready"
            report = group.stop(0)
            assert read_all(first) == read_all(second) == b""
    assert len(report.cut) == 2


def test_from_a_handler_of_a_serial_server() -> None:
    group, recorder = group_of(lambda *_: group.stop(3600), Echo), EventRecorder()
    group.subscribe(recorder)
    thread = Background(group.serve_forever)
    assert ask(group.addresses[0], b"") == b""
    thread.result()
    assert len(recorder.of(Stopped)) == 2
    assert [s.state for s in group.servers] == [ServerState.STOPPED] * 2


def test_from_a_fiber() -> None:
    group, recorder = (
        group_of(lambda *_: group.stop(3600), Echo, kind=FiberTCPServer),
        EventRecorder(),
    )
    group.subscribe(recorder)
    thread = Background(group.serve_forever)
    assert ask(group.addresses[0], b"") == b""
    thread.result()
    assert len(recorder.of(Stopped)) == 2


def test_while_one_drains_the_other_goes_on() -> None:
    gate = Gate()
    group, recorder = group_of(gate, Held, kind=ThreadingTCPServer), EventRecorder()
    group.subscribe(recorder)
    with group.running() as (one, other):
        with connect(one), connect(other) as client:
            assert client.recv(5) == b"ready"
            recorder.wait_for(Opened, 2)
            stop = Background(group.servers[0].stop, 3600)
            recorder.wait_for(Draining)
            client.sendall(b"go on")
            assert read_all(client) == b"bye"
            with connect(other) as again:
                assert again.recv(5) == b"ready"
                again.sendall(b"go on")
                assert read_all(again) == b"bye"
            gate.opened.set()
            assert stop.result().cut == ()


# -- the rest ----------------------------------------------------------------------------------


def test_a_subscription_is_for_all_and_ends_for_all() -> None:
    group, recorder = group_of(Echo, Echo), EventRecorder()
    end = group.subscribe(recorder)
    with group.running() as addresses:
        for address in addresses:
            assert ask(address) == b"ping"
        recorder.wait_for(Finished, 2)
        end()
    assert len(recorder.of(Serving)) == 2
    assert recorder.of(Stopped) == []


def test_without_tls_there_is_nothing_to_reload() -> None:
    with group_of(Echo) as group:
        assert not group.has_tls()
        group.reload_tls()


def test_certificates_that_servers_share_are_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[TLS] = []
    monkeypatch.setattr(TLS, "reload", lambda tls: read.append(tls))
    certificates = Certificates(tmp_path)
    shared, other = TLS(*certificates.server), TLS(*certificates.renewed)
    with group_of(Echo, Echo, Echo, Echo) as group:
        for server, tls in zip(group.servers, (shared, other, None, shared), strict=True):
            vars(server)["tls"] = tls
            server._everserve.settings.note_change()
        assert group.has_tls()
        group.reload_tls()
    assert read == [shared, other]


def test_closing_closes_all() -> None:
    with group_of(Echo, Echo) as group:
        pass
    assert [server.fileno() for server in group.servers] == [-1, -1]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_stop_in_a_forked_child_reaches_the_parent() -> None:
    def stop(*_: Any) -> None:
        group.stop(3600)

    group = group_of(stop, Echo, kind=ForkingTCPServer)
    serving = Background(group.serve_forever)
    with connect(group.addresses[0]) as client:
        assert read_all(client) == b""
    serving.result()
    assert [s.state for s in group.servers] == [ServerState.STOPPED] * 2


def test_a_server_that_cannot_be_closed_does_not_keep_the_others_open() -> None:
    """It stops on the thread that serves, and fails there."""

    class Stuck(TCPServer):
        def server_close(self) -> None:
            super().server_close()
            raise LookupError("stuck")

    def stop(*_: Any) -> None:
        group.stop(3600)

    group = ServerGroup([Stuck(LOOPBACK, stop), Stuck(LOOPBACK, Echo), TCPServer(LOOPBACK, Echo)])
    serving = Background(group.serve_forever)
    with connect(group.addresses[0]) as client:
        assert read_all(client) == b""
    with pytest.raises(LookupError, match="stuck"):
        serving.result()
    assert [s.fileno() for s in group.servers] == [-1] * 3
    assert [s._everserve.life.session for s in group.servers] == [None] * 3


@pytest.mark.parametrize("kind", STREAMS)
def test_it_responds_unless_a_handler_holds_the_loop(kind: type[TCPServer]) -> None:
    begun, let_go = threading.Event(), threading.Event()

    def hold(request: Any, *_: Any) -> None:
        begun.set()
        let_go.wait(LIMIT)

    group = group_of(hold, kind=kind)
    with group.running() as (address,), connect(address):
        assert begun.wait(LIMIT)
        assert group.is_turning()
        if kind is FiberTCPServer:  # the handler of a serial server may take its time
            assert not group.is_turning()
        let_go.set()
