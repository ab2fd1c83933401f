"""``concurrency.forks``: a process for each request."""

from __future__ import annotations

import errno
import os
import signal
import socket
import socketserver
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from tests.clients import LIMIT, Background, ask, connect, read_all, serving
from tests.scenes import LOOPBACK, Echo, EventRecorder, Held

from everserve.admission.access import Networks
from everserve.combos import ForkingTCPServer, ThreadingTCPServer
from everserve.concurrency import forks
from everserve.errors import ServerClosedError
from everserve.events import Accepted, Draining, Failed, Finished, Opened, Shed, Stopped
from everserve.handlers.base import BaseRequestHandler
from everserve.handlers.stream import StreamRequestHandler
from everserve.lifecycle.connection import Connection
from everserve.lifecycle.state import ServerState
from everserve.mixins import ForkingMixIn

pytestmark = pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)


class Pid(BaseRequestHandler):
    """Sends the id of its process."""

    def handle(self) -> None:
        self.request.sendall(str(os.getpid()).encode())


@pytest.fixture(params=["pidfd", "plain"])
def _any_system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With process descriptors, and as on a system without them."""
    if request.param == "plain":
        monkeypatch.setattr(forks, "_HAS_PIDFD", False)
    elif not hasattr(os, "pidfd_open"):
        pytest.skip("no pidfd_open on this system")


any_system = pytest.mark.usefixtures("_any_system")


def is_reaped(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_warning_about_threads_is_no_error_that_loses_a_child() -> None:
    server = ForkingTCPServer(("127.0.0.1", 0), Pid)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with server.running() as address:  # a second thread
            pid = int(ask(address))
    assert is_reaped(pid)


def test_the_defaults() -> None:
    assert ForkingMixIn.timeout == 300
    assert ForkingMixIn.max_children == 40
    assert ForkingMixIn.block_on_close is True
    with ForkingTCPServer(LOOPBACK, Echo) as server:
        assert server.active_children is None


@any_system
def test_each_request_has_its_process() -> None:
    server, recorder = ForkingTCPServer(LOOPBACK, Pid), EventRecorder()
    server.subscribe(recorder)
    with serving(server, 0.01) as address:
        pids = {int(ask(address, b"")) for _ in range(3)}
        recorder.wait_for(Finished, 3)
    assert len(pids) == 3
    assert os.getpid() not in pids
    assert all(is_reaped(pid) for pid in pids)
    assert server.active_children == set()


def test_a_child_that_ends_is_collected_without_polling() -> None:
    server, recorder = ForkingTCPServer(LOOPBACK, Pid), EventRecorder()
    server.subscribe(recorder)
    with serving(server, 3600) as address:
        pid = int(ask(address, b""))
        recorder.wait_for(Finished)
        assert is_reaped(pid)


@any_system
def test_no_more_than_max_children() -> None:
    server, recorder = ForkingTCPServer(LOOPBACK, Held), EventRecorder()
    server.max_children = 2
    server.subscribe(recorder)
    with serving(server, 0.01) as address:
        clients = [connect(address) for _ in range(3)]
        for client in clients[:2]:
            assert client.recv(5) == b"ready"
        assert len(recorder.of(Accepted)) == 2
        clients[0].sendall(b"go on")
        assert clients[2].recv(5) == b"ready"
        for client in clients[1:]:
            client.sendall(b"go on")
        for client in clients:
            assert read_all(client) == b"bye"
            client.close()


@any_system
def test_handle_request_and_its_timeout_collect_too() -> None:
    with ForkingTCPServer(LOOPBACK, Echo) as server:
        turn = Background(server.handle_request)
        assert ask(server.server_address) == b"ping"
        turn.result()
        server.timeout = 0.01  # not before: the client may be later than that
        while server.active_children:
            server.handle_request()
        assert len(server.connections) == 0


@any_system
@pytest.mark.parametrize("blocking", [True, False])
def test_closing(blocking: bool) -> None:
    server = ForkingTCPServer(LOOPBACK, Held)
    server.block_on_close = blocking
    with connect(server.server_address) as client:
        server.handle_request()
        assert client.recv(5) == b"ready"
        closing = Background(server.server_close)
        if blocking:
            closing.join(0.02)
            assert closing.is_alive()
            client.sendall(b"go on")
            assert read_all(client) == b"bye"
            closing.result()
            assert not server.active_children
        else:
            closing.result()
            assert len(server.active_children or ()) == 1
            client.sendall(b"go on")
            assert read_all(client) == b"bye"
            server.collect_children(blocking=True)
            assert not server.active_children


def test_a_child_that_the_program_has_waited_for() -> None:
    server = ForkingTCPServer(LOOPBACK, Echo)
    with server:
        turn = Background(server.handle_request)
        assert ask(server.server_address) == b"ping"
        turn.result()
        (pid,) = server.active_children or (0,)
        os.waitpid(pid, 0)
        server.collect_children()
        assert not server.active_children
        assert len(server.connections) == 0


def test_two_threads_that_collect_the_same_child(monkeypatch: pytest.MonkeyPatch) -> None:
    with ForkingTCPServer(LOOPBACK, Echo) as server:
        recorder = EventRecorder()
        server.subscribe(recorder)
        turn = Background(server.handle_request)
        assert ask(server.server_address) == b"ping"
        turn.result()
        (pid,) = server.active_children or (0,)
        waitpid = os.waitpid

        def wait_and_let_another_come_between(pid: int, flags: int) -> tuple[int, int]:
            ended = waitpid(pid, flags)
            monkeypatch.setattr(os, "waitpid", waitpid)
            server._everserve.strategy._collect(pid, os.WNOHANG)
            return ended

        monkeypatch.setattr(os, "waitpid", wait_and_let_another_come_between)
        server._everserve.strategy._collect(pid, 0)
        assert not server.active_children
        assert len(recorder.of(Finished)) == 1


def test_collecting_with_no_children() -> None:
    with ForkingTCPServer(LOOPBACK, Echo) as server:
        server.collect_children(blocking=True)
        server._everserve.strategy._collect(os.getpid(), 0)


def test_an_error_in_a_child_is_reported_there_and_closes_the_connection() -> None:
    class Telling(ForkingTCPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            request.sendall(str(sys.exception()).encode())

    def fail(*_: Any) -> None:
        raise ValueError("in the child")

    with serving(Telling(LOOPBACK, fail)) as address, connect(address) as client:
        assert read_all(client) == b"in the child"


def test_output_of_a_child_is_written_once(capfd: pytest.CaptureFixture[str]) -> None:
    def talk(*_: Any) -> None:
        sys.stdout.write("child;")

    sys.stdout.write("parent;")
    with serving(ForkingTCPServer(LOOPBACK, talk)) as address, connect(address) as client:
        assert client.recv(1) == b""
    sys.stdout.flush()
    assert capfd.readouterr().out == "parent;child;"


def test_output_that_is_closed_does_not_hinder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with serving(ForkingTCPServer(LOOPBACK, Echo)) as address:
        assert ask(address) == b"ping"


def test_without_a_descriptor_left_for_a_process_it_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(_: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    server, recorder = ForkingTCPServer(LOOPBACK, Echo), EventRecorder()
    server.subscribe(recorder)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pidfd_open", exhausted, raising=False)
        with serving(server, 0.01) as address:
            assert ask(address) == b"ping"
            recorder.wait_for(Finished)


@pytest.mark.parametrize(
    ("end", "how"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "was killed by signal 9"),
        (lambda: os._exit(3), "ended with status 3"),
    ],
)
def test_a_child_that_ends_without_a_note_is_a_failure(end: Any, how: str) -> None:
    server, recorder = ForkingTCPServer(LOOPBACK, lambda *_: end()), EventRecorder()
    server.subscribe(recorder)
    with serving(server) as address:
        assert ask(address, b"") == b""
        (failed,) = recorder.wait_for(Failed)
    assert str(failed.error) == f"the process of the request {how}"
    assert recorder.of(Finished) == []


@any_system
def test_waiting_for_a_process_that_has_already_ended() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    forks._wait_for_any({pid}, None)


def test_waiting_without_descriptors_left_does_not_spin(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(_: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    slept: list[float] = []
    monkeypatch.setattr(os, "pidfd_open", exhausted, raising=False)
    monkeypatch.setattr(forks, "sleep", slept.append)
    forks._wait_for_any({os.getpid()}, None)
    assert slept == [0.01]


# -- orders of a child, and the state that it sees ---------------------------------------------


def test_a_child_may_shut_the_server_down() -> None:
    class ShutsDown(BaseRequestHandler):
        def handle(self) -> None:
            self.server.shutdown()
            self.request.sendall(b"done")

    with ForkingTCPServer(LOOPBACK, ShutsDown) as server:
        thread = Background(server.serve_forever, 3600)
        assert ask(server.server_address, b"") == b"done"
        thread.result()
        assert server.state is ServerState.READY


def test_a_child_may_stop_the_server() -> None:
    class Stops(BaseRequestHandler):
        def handle(self) -> None:
            report = self.server.stop(3600)
            self.request.sendall(f"{len(report.unfinished)} {self.server.draining}".encode())

    server, recorder = ForkingTCPServer(LOOPBACK, Stops), EventRecorder()
    server.subscribe(recorder)
    thread = Background(server.serve_forever, 3600)
    assert ask(server.server_address, b"") == b"1 True"
    thread.result()
    (stopped,) = recorder.of(Stopped)
    assert (stopped.report.cut, stopped.report.unfinished) == ((), ())
    assert len(recorder.of(Finished)) == 1


def test_children_see_that_the_server_drains() -> None:
    class Sees(BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(b"%d" % self.server.draining)
            self.request.recv(100)
            self.request.sendall(b"%d" % self.server.draining)

    server, recorder = ForkingTCPServer(LOOPBACK, Sees), EventRecorder()
    server.subscribe(recorder)
    with server.running() as address, connect(address) as client:
        assert client.recv(1) == b"0"
        stop = Background(server.stop, 3600)
        recorder.wait_for(Draining)
        client.sendall(b"now?")
        assert read_all(client) == b"1"
        assert stop.result().finished == 1


def test_a_child_that_closes_the_server_does_not_wait_for_other_children() -> None:
    class Closes(BaseRequestHandler):
        def handle(self) -> None:
            self.server.server_close()
            self.request.sendall(b"closed")

    with serving(ForkingTCPServer(LOOPBACK, Closes)) as address:
        for _ in range(2):
            assert ask(address, b"") == b"closed"


def test_a_child_may_stop_a_server_that_handles_single_requests() -> None:
    class Stops(BaseRequestHandler):
        def handle(self) -> None:
            self.server.stop(3600)
            self.request.sendall(b"done")

    def handle_requests() -> None:
        while server.state is not ServerState.STOPPED:
            server.handle_request()

    server, recorder = ForkingTCPServer(LOOPBACK, Stops), EventRecorder()
    server.subscribe(recorder)
    thread = Background(handle_requests)
    assert ask(server.server_address, b"") == b"done"
    thread.result()
    (stopped,) = recorder.of(Stopped)
    assert (stopped.report.cut, stopped.report.unfinished) == ((), ())
    assert not server.active_children


def test_a_child_that_stops_between_two_single_requests() -> None:
    class Stops(BaseRequestHandler):
        def handle(self) -> None:
            self.server.stop(3600)
            self.request.sendall(b"done")

    server = ForkingTCPServer(LOOPBACK, Stops)
    with connect(server.server_address) as client:
        server.handle_request()
        assert read_all(client) == b"done"
    server.handle_request()  # returns: no more requests follow
    assert server.state is ServerState.STOPPED
    with pytest.raises(ServerClosedError):
        server.handle_request()


# -- events ------------------------------------------------------------------------------------


class Notebook:
    """A subscriber that writes the id of its process to a file, which all processes share."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()

    def __call__(self, event: Any) -> None:
        os.write(self._writer, b"%d\n" % os.getpid())

    def pids(self) -> set[int]:
        os.close(self._writer)
        with open(self._reader) as file:
            return {int(line) for line in file}


def test_no_subscriber_runs_in_a_child() -> None:
    server, recorder, notebook = ForkingTCPServer(LOOPBACK, Held), EventRecorder(), Notebook()
    server.subscribe(notebook)
    server.subscribe(recorder)
    with server.running() as address, connect(address) as client:
        assert client.recv(5) == b"ready"
        (opened,) = recorder.wait_for(Opened)  # while the handler still runs
        assert opened == Opened(1, client.getsockname())
        client.sendall(b"go on")
        assert read_all(client) == b"bye"
        recorder.wait_for(Finished)
    assert recorder.names() == ["Serving", "Accepted", "Opened", "Finished", "Draining", "Stopped"]
    assert notebook.pids() == {os.getpid()}


@any_system
def test_the_start_of_a_finished_request_is_reported_before_its_end() -> None:
    server, recorder = ForkingTCPServer(LOOPBACK, Echo), EventRecorder()
    server.subscribe(recorder)
    with server:
        with connect(server.server_address) as client:
            server.handle_request()
            client.sendall(b"ping")
            assert read_all(client) == b"ping"
        server.collect_children(blocking=True)
        assert recorder.names() == ["Accepted", "Opened", "Finished"]


@pytest.mark.parametrize(("word", "kind"), [(b"end", Finished), (b"fail", Failed)])
def test_behind_a_proxy_the_events_name_the_client(word: bytes, kind: type) -> None:
    class Behind(ForkingTCPServer):
        proxy_protocol = True
        trusted_proxies = Networks(["127.0.0.0/8"])

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass

    def handle(request: Any, client_address: Any, server: Any) -> None:
        if request.recv(100) == b"fail":
            raise ValueError("meant to fail")

    server, recorder = Behind(LOOPBACK, handle), EventRecorder()
    server.subscribe(recorder)
    with server.running() as address, connect(address) as proxy:
        proxy.sendall(b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 80\r\n")
        assert recorder.wait_for(Opened)[0].peer == ("192.0.2.1", 4711)
        (connection,) = server.connections
        assert connection.peer == ("192.0.2.1", 4711)
        proxy.sendall(word)
        assert read_all(proxy) == b""
        assert recorder.wait_for(kind)[0].peer == ("192.0.2.1", 4711)
    assert recorder.of(Accepted)[0].peer == proxy_name(recorder)


def proxy_name(recorder: EventRecorder) -> Any:
    (accepted,) = recorder.of(Accepted)
    assert accepted.peer[0] == "127.0.0.1"
    return accepted.peer


def test_the_idle_connection_is_shed() -> None:
    class Sheds(ForkingTCPServer):
        max_connections = 2
        overload = "shed-idle"

    server, recorder = Sheds(LOOPBACK, EchoLines), EventRecorder()
    server.subscribe(recorder)
    with server.running() as address, connect(address) as first, connect(address) as second:
        for client in (first, second):
            exchange(client)
        one, other = server.connections
        while quiet(other) <= quiet(one):  # until the kernel reports that the second is idle longer
            exchange(first)
        with connect(address) as third:
            third.sendall(b"line\n")
            assert third.recv(100) == b"line\n"
            assert read_all(second) == b""
            assert [shed.connection for shed in recorder.of(Shed)] == [2]
            first.sendall(b"line\n")
            assert first.recv(100) == b"line\n"
            for client in (first, third):
                client.shutdown(socket.SHUT_RDWR)


def exchange(client: socket.socket) -> None:
    client.sendall(b"line\n")
    assert client.recv(100) == b"line\n"


def quiet(connection: Connection) -> float:
    traffic = connection.traffic()
    assert traffic is not None
    return traffic.quiet


class EchoLines(StreamRequestHandler):
    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line)


# -- stopping ----------------------------------------------------------------------------------


@any_system
def test_a_stop_waits_for_the_children() -> None:
    server, recorder = ForkingTCPServer(LOOPBACK, Held), EventRecorder()
    server.subscribe(recorder)
    with server.running(poll_interval=0.01) as address, connect(address) as client:
        assert client.recv(5) == b"ready"
        stop = Background(server.stop, 3600)
        recorder.wait_for(Draining)
        client.sendall(b"go on")
        assert read_all(client) == b"bye"
        report = stop.result()
    assert (report.finished, report.cut) == (1, ())


@any_system
def test_a_stop_cuts_the_children() -> None:
    server = ForkingTCPServer(LOOPBACK, Held)
    with server.running(poll_interval=0.01) as address, connect(address) as client:
        assert client.recv(5) == b"ready"
        report = server.stop(0)
        assert read_all(client) == b""
    assert (len(report.cut), report.unfinished) == (1, ())
    assert not server.active_children


def test_a_stop_cuts_children_that_ignore_it() -> None:
    class Deaf(BaseRequestHandler):
        def handle(self) -> None:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            self.request.sendall(b"ready")
            threading.Event().wait(LIMIT)

    server = ForkingTCPServer(LOOPBACK, Deaf)
    with server.running() as address, connect(address) as client:
        assert client.recv(5) == b"ready"
        report = server.stop(0)
        assert read_all(client) == b""
    assert (len(report.cut), report.unfinished) == (1, ())


def test_a_stop_cuts_a_child_that_is_just_being_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Late(set[int]):
        def add(self, pid: int) -> None:
            notifier.wait_until(lambda: strategy._last_signal is signal.SIGKILL)
            super().add(pid)

    def signal_and_notify(number: signal.Signals) -> None:
        signal_children(number)
        notifier.notify()

    class Deaf(BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(b"ready")
            threading.Event().wait(LIMIT)

    server = ForkingTCPServer(LOOPBACK, Deaf)
    strategy, notifier = server._everserve.strategy, server._everserve.life.notifier
    assert isinstance(strategy, forks.ForkStrategy)
    signal_children = strategy._signal_children
    monkeypatch.setattr(strategy, "_signal_children", signal_and_notify)
    thread = Background(server.serve_forever)
    with connect(server.server_address) as first:
        assert first.recv(5) == b"ready"
        while not server.active_children:
            pass  # the child has ended before the signal
        strategy.children = Late(server.active_children)
        with connect(server.server_address) as second:
            assert second.recv(5) == b"ready"
            report = server.stop(0)
            thread.result()
            assert read_all(first) == read_all(second) == b""
    assert report.unfinished == ()
    assert not server.active_children


def test_a_stop_after_shutdown_waits_for_the_children() -> None:
    server = ForkingTCPServer(LOOPBACK, Held)
    thread = Background(server.serve_forever)
    with connect(server.server_address) as client:
        assert client.recv(5) == b"ready"
        server.shutdown()
        thread.result()
        stop = Background(server.stop, 3600)
        client.sendall(b"go on")
        assert read_all(client) == b"bye"
        assert stop.result().cut == ()


def test_a_second_stop_shortens_the_wait_for_children() -> None:
    server, recorder = ForkingTCPServer(LOOPBACK, Held), EventRecorder()
    server.subscribe(recorder)
    with server.running() as address, connect(address) as client:
        assert client.recv(5) == b"ready"
        first = Background(server.stop, 3600)
        recorder.wait_for(Draining)
        assert server.stop(0) is first.result()


def test_while_it_drains_the_accept_loop_keeps_its_wake_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sessions: list[object] = []
    original = forks._wait_for_any

    def note(*args: Any) -> None:
        life = server._everserve.life
        sessions.append(life.session is not None and not life.serving_here())
        original(*args)

    monkeypatch.setattr(forks, "_wait_for_any", note)
    server = ForkingTCPServer(LOOPBACK, Held)
    with server.running(poll_interval=3600) as address, connect(address) as client:
        assert client.recv(5) == b"ready"
        stop = Background(server.stop, 3600)
        server._everserve.life.notifier.wait_until(lambda: server.fileno() == -1)
        client.sendall(b"go on")
        assert stop.result().finished == 1
    assert not any(sessions)


def test_a_child_sees_the_address_of_its_server_and_holds_no_port() -> None:
    """Neither that of its server, nor that of another server of the process."""

    class Look(StreamRequestHandler):
        def handle(self) -> None:
            server = self.server
            seen = (server.socket.getsockname(), server.server_address, server.fileno() >= 0)
            self.wfile.write(repr(seen).encode() + b"\n")
            self.rfile.readline()

    with ThreadingTCPServer(LOOPBACK, Echo) as other, ForkingTCPServer(LOOPBACK, Look) as server:
        with server.running() as address, other.running() as others:
            with connect(address) as client:
                seen = client.makefile("rb").readline()
                assert seen.decode().strip() == repr((address, address, True))
                other.stop()
                server.shutdown()
                server.socket.close()
                for port in (address, others):
                    with pytest.raises(ConnectionRefusedError):
                        connect(port)
                client.sendall(b"\n")


def test_the_children_do_not_keep_the_listener_open() -> None:
    server, recorder = ForkingTCPServer(LOOPBACK, Held), EventRecorder()
    server.subscribe(recorder)
    with server.running() as address, connect(address) as client:
        assert client.recv(5) == b"ready"
        stop = Background(server.stop, 3600)
        assert server._everserve.life.notifier.wait_until(
            lambda: server._everserve.life.session is None
        )
        with pytest.raises(ConnectionRefusedError):
            connect(address)
        client.sendall(b"go on")
        assert stop.result().finished == 1


def test_signalling_a_child_that_has_ended() -> None:
    with ForkingTCPServer(LOOPBACK, Echo) as server:
        turn = Background(server.handle_request)
        assert ask(server.server_address) == b"ping"
        turn.result()
        (pid,) = server.active_children or (0,)
        os.waitpid(pid, 0)
        server._everserve.strategy._signal_children(signal.SIGTERM)


# -- on the standard library's servers ---------------------------------------------------------


class Standard(ForkingMixIn, socketserver.TCPServer):  # type: ignore[misc]
    max_children = 1


@pytest.fixture
def standard() -> Iterator[Any]:
    server = Standard(LOOPBACK, Pid)
    with serving(server, 0.01):
        yield server


@any_system
def test_it_works_on_the_standard_librarys_server(standard: Any) -> None:
    pids = {int(ask(standard.server_address, b"")) for _ in range(3)}
    assert len(pids) == 3
    assert os.getpid() not in pids


@any_system
def test_there_max_children_waits_in_the_loop() -> None:
    server = Standard(LOOPBACK, Held)
    with serving(server, 0.01) as address:
        with connect(address) as first, connect(address) as second:
            assert first.recv(5) == b"ready"
            first.sendall(b"go on")
            assert read_all(first) == b"bye"
            assert second.recv(5) == b"ready"
            second.sendall(b"go on")
            assert read_all(second) == b"bye"


def test_it_counts_accepted_connections() -> None:
    server, recorder = ForkingTCPServer(LOOPBACK, Echo), EventRecorder()
    server.subscribe(recorder)
    with serving(server) as address:
        for _ in range(4):
            assert ask(address) == b"ping"
        recorder.wait_for(Finished, 4)
    assert len(recorder.of(Accepted)) == 4
    assert isinstance(server.socket, socket.socket)
