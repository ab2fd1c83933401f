"""The contract: requests are served, independently of each other."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any
from unittest import mock

import pytest
from tests.clients import LIMIT, Background, serving
from tests.contract.kinds import Client, Gate, Strategy, Transport
from tests.scenes import EventRecorder

from everserve.events import Finished, Serving
from everserve.lifecycle.state import ServerState

MakeServer = Callable[..., Any]
MakeClient = Callable[[Any], Client]


def echo(handler: Any) -> None:
    handler.wfile.write(handler.rfile.readline())


def test_one_after_the_other(make_server: MakeServer, make_client: MakeClient) -> None:
    server = make_server(echo)
    with server.running():
        for number in range(5):
            client = make_client(server)
            assert client.ask(b"ping %d\n" % number) == b"ping %d\n" % number
            client.end()


def test_served_by_serve_forever_and_shutdown(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server(echo)
    for _ in range(2):
        thread = Background(server.serve_forever)
        assert make_client(server).ask(b"ping\n") == b"ping\n"
        server.shutdown()
        thread.result()
        assert server.state is ServerState.READY


def test_served_by_handle_request(make_server: MakeServer, make_client: MakeClient) -> None:
    server = make_server(echo)
    for _ in range(3):
        client = make_client(server)
        client.send(b"ping\n")
        server.handle_request()
        assert client.receive() == b"ping\n"


def test_handle_request_times_out(make_server: MakeServer) -> None:
    timeouts: list[bool] = []

    def handle_timeout(self: Any) -> None:
        timeouts.append(True)

    make_server(echo, timeout=0.001, handle_timeout=handle_timeout).handle_request()
    assert timeouts == [True]


def test_handle_request_waits_to_its_end_after_server_close(make_server: MakeServer) -> None:
    """As on the standard library: a loop over it ends by its own condition, not by an error."""
    looks = threading.Semaphore(0)
    timeouts: list[bool] = []

    def fileno(self: Any) -> int:
        looks.release()
        return int(self.socket.fileno())

    def handle_timeout(self: Any) -> None:
        timeouts.append(True)

    server = make_server(echo, timeout=0.2, fileno=fileno, handle_timeout=handle_timeout)
    thread = Background(server.handle_request)
    for _ in range(2):  # when it begins, and before it waits
        assert looks.acquire(timeout=LIMIT)
    server.server_close()
    thread.result()
    assert timeouts == [True]


def test_service_actions_of_an_idle_instance(make_server: MakeServer) -> None:
    """The next poll calls it, although an idle server without it does not poll."""
    called = threading.Event()
    server = make_server(echo)
    recorder = EventRecorder()
    server.subscribe(recorder)
    with serving(server, 0.01):
        recorder.wait_for(Serving)
        server.service_actions = called.set
        assert called.wait(LIMIT)


def test_no_name_of_the_socket_module_is_needed_to_serve(
    strategy: Strategy, make_server: MakeServer
) -> None:
    """A test of the program may have replaced it by a mock, and so it may be read as one."""
    if strategy.name == "asyncio":
        pytest.skip("a loop of asyncio makes sockets of its own")
    server = make_server(echo)
    with mock.patch("socket.socket"):
        thread = Background(server.serve_forever)
        server.shutdown()
        thread.result()


def test_many_clients(
    make_server: MakeServer, make_client: MakeClient, recorder: EventRecorder
) -> None:
    server = make_server(echo)
    server.subscribe(recorder)
    with server.running():
        clients = [make_client(server) for _ in range(30)]
        for number, client in enumerate(clients):
            client.send(b"%d\n" % number)
        for number, client in enumerate(clients):
            assert client.receive() == b"%d\n" % number
        recorder.wait_for(Finished, 30)


@pytest.mark.usefixtures("concurrent")
def test_many_at_the_same_time(
    make_server: MakeServer, make_client: MakeClient, gate: Gate
) -> None:
    def handle(handler: Any) -> None:
        line = handler.rfile.readline()
        gate.hold()
        handler.wfile.write(line)

    server = make_server(handle)
    with server.running():
        clients = [make_client(server) for _ in range(20)]
        for number, client in enumerate(clients):
            client.send(b"%d\n" % number)
        gate.wait_entered(20)
        assert len(server.connections) == 20
        gate.open(20)
        for number, client in enumerate(clients):
            assert client.receive() == b"%d\n" % number


def test_an_exception_ends_only_its_request(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    def handle(handler: Any) -> None:
        line = handler.rfile.readline()
        if line == b"fail\n":
            raise ValueError("must fail")
        handler.wfile.write(line)

    def handle_error(self: Any, request: Any, client_address: Any) -> None:
        text = f"{sys.exception()}\n".encode()
        if isinstance(request, socket.socket):
            request.sendall(text)
        else:
            request[1].sendto(text, client_address)

    server = make_server(handle, handle_error=handle_error)
    with server.running():
        failing = make_client(server)
        assert failing.ask(b"fail\n") == b"must fail\n"
        failing.end()
        assert make_client(server).ask(b"ping\n") == b"ping\n"


@pytest.mark.usefixtures("concurrent")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_exit_of_a_handler_ends_only_its_request(
    make_server: MakeServer,
    make_client: MakeClient,
    recorder: EventRecorder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left: list[threading.Thread] = []

    def handle(handler: Any) -> None:
        line = handler.rfile.readline()
        if line == b"exit\n":
            left.append(threading.current_thread())
            raise SystemExit(3)
        handler.wfile.write(line)

    server = make_server(handle)
    with server.running():
        leaving = make_client(server)
        leaving.send(b"exit\n")
        leaving.end()
        assert make_client(server).ask(b"ping\n") == b"ping\n"
    for thread in left:  # its end is to be reported in this test
        thread.join(LIMIT)


def test_refused_by_verify_request(
    make_server: MakeServer, make_client: MakeClient, transport: Transport, recorder: EventRecorder
) -> None:
    verified: list[Any] = []

    def verify_request(self: Any, request: Any, client_address: Any) -> bool:
        verified.append(client_address)
        return len(verified) > 1

    server = make_server(echo, verify_request=verify_request)
    server.subscribe(recorder)
    with server.running():
        refused = make_client(server)
        if not transport.is_stream:
            refused.send(b"refused\n")
        refused.end()
        assert make_client(server).ask(b"ping\n") == b"ping\n"
        recorder.wait_for(Finished)
    assert recorder.names()[:3] == ["Serving", "Accepted", "Refused"]


def test_its_peer(make_server: MakeServer, make_client: MakeClient, transport: Transport) -> None:
    def reply(handler: Any) -> None:
        handler.rfile.readline()
        handler.wfile.write(repr(handler.client_address).encode() + b"\n")

    server = make_server(reply)
    with server.running():
        client = make_client(server)
        name = client.name if transport.host or not transport.is_stream else ""
        assert client.ask(b"who am I?\n") == repr(name).encode() + b"\n"


def test_the_handlers_request_and_server(make_server: MakeServer, make_client: MakeClient) -> None:
    def reply(handler: Any) -> None:
        handler.rfile.readline()
        request = handler.request
        sock = request if isinstance(request, socket.socket) else request[1]
        handler.wfile.write(f"{sock.fileno() >= 0} {handler.server.mark}\n".encode())

    server = make_server(reply, mark="ours")
    with server.running():
        assert make_client(server).ask(b"?\n") == b"True ours\n"


def test_closing_again_does_no_harm(make_server: MakeServer) -> None:
    with make_server(echo) as server:
        assert server.fileno() >= 0
    assert server.fileno() == -1
    server.server_close()
    assert server.state is ServerState.STOPPED


def test_running_raises_what_serve_forever_raised(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    def verify_request(self: Any, request: Any, client_address: Any) -> bool:
        raise KeyboardInterrupt("served enough")

    server = make_server(echo, verify_request=verify_request)

    def serve() -> None:
        with server.running():
            make_client(server).offer(b"ping\n")
            server._everserve.life.notifier.wait_until(
                lambda: server._everserve.life.session is None
            )

    with pytest.raises(KeyboardInterrupt, match="served enough"):
        Background(serve).result()


def test_suspend_and_resume(make_server: MakeServer, make_client: MakeClient) -> None:
    server = make_server(echo)
    server.suspend()
    with server.running():
        assert server.state is ServerState.SUSPENDED
        client = make_client(server)
        client.send(b"ping\n")
        client.socket.settimeout(0.02)
        with pytest.raises(TimeoutError):
            client.socket.recv(1)
        client.socket.settimeout(LIMIT)
        server.resume()
        assert server.state is ServerState.SERVING
        assert client.socket.recv(100) == b"ping\n"


def test_the_connections_in_progress(
    make_server: MakeServer, make_client: MakeClient, gate: Gate
) -> None:
    def handle(handler: Any) -> None:
        handler.rfile.readline()
        gate.hold()

    server = make_server(handle)
    with server.running():
        client = make_client(server)
        client.send(b"ping\n")
        gate.wait_entered()
        (connection,) = server.connections
        assert connection.state.value == "handling"
        assert connection.age > 0
        gate.open()
        server._everserve.life.notifier.wait_until(lambda: not server.connections)
    assert connection.state.value == "closed"


def test_the_address_can_be_used_again(
    make_server: MakeServer, make_client: MakeClient, transport: Transport
) -> None:
    first = make_server(echo, allow_reuse_address=True)
    with serving(first) as address:
        client = make_client(first)
        assert client.ask(b"ping\n") == b"ping\n"
        client.end()
        client.close()
    second = type(first)(address, first.RequestHandlerClass)
    with serving(second) as again:
        assert again == address
        assert make_client(second).ask(b"ping\n") == b"ping\n"


def test_the_strategy_is_the_one_named(strategy: Strategy, make_server: MakeServer) -> None:
    mix_ins = [base.__name__ for base in type(make_server(echo)).__mro__]
    expected = {
        "serial": None, "threads": "ThreadingMixIn", "pool": "ThreadPoolMixIn",
        "forks": "ForkingMixIn",
    }.get(strategy.name)  # fmt: skip
    assert expected is None or expected in mix_ins


SEEN: ContextVar[str] = ContextVar("SEEN", default="nothing")


def test_a_request_begins_with_a_clean_context(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    """Also where a thread has run another request before."""

    def handle(handler: Any) -> None:
        before = SEEN.get()
        SEEN.set(handler.rfile.readline().decode())
        handler.wfile.write(before.encode() + b"\n")

    server = make_server(handle, max_workers=1)
    with server.running():
        for word in (b"alice\n", b"bob\n"):
            client = make_client(server)
            assert client.ask(word) == b"nothing\n"
            client.end()


def test_the_mode_of_a_shared_listener_is_not_trusted(
    strategy: Strategy, make_server: Callable[..., Any]
) -> None:
    """Another process that shares it may make it block at any time: here the server's own hook does."""
    tried = threading.Event()

    def service_actions(server: Any) -> None:
        if not tried.is_set():
            os.set_blocking(server.fileno(), True)
            server._handle_request_noblock()  # nothing waits
            tried.set()

    server = make_server(lambda handler: None, service_actions=service_actions)
    with serving(server, 0.01):
        assert tried.wait(LIMIT)
        assert server.socket.gettimeout() in (0.0, None)
    if server.fileno() != -1:
        assert os.get_blocking(server.fileno())
