"""``run``: several servers, signals, and how it ends. Signals have a process of their own."""

import signal
import socket
import subprocess
import sys
import threading
from typing import Any

import pytest
from tests.clients import LIMIT

import everserve
from everserve.process.run import run
from everserve.process.signals import receiving
from everserve.server.group import ServerGroup


class Echo(everserve.StreamRequestHandler[Any, Any]):
    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line)


def make() -> everserve.TCPServer:
    return everserve.ThreadingTCPServer(("127.0.0.1", 0), Echo)


def test_on_ready_is_called_when_all_serve() -> None:
    servers = [make(), make()]

    def ready() -> None:
        for server in servers:
            assert server.state is everserve.ServerState.SERVING
            threading.Thread(target=server.stop).start()

    report = run(ServerGroup(servers), on_ready=ready)
    assert (report.finished, report.cut, report.unfinished) == (0, (), ())


def test_a_server_that_shuts_down_is_closed_at_the_end() -> None:
    server = make()
    run(ServerGroup([server]), on_ready=server.shutdown)
    assert server.state is everserve.ServerState.STOPPED
    assert server.fileno() == -1


def test_an_error_stops_all_and_is_raised() -> None:
    servers = [make(), make()]

    def service_actions() -> None:
        raise LookupError("broken")

    servers[0].service_actions = service_actions  # type: ignore[method-assign]
    with pytest.raises(LookupError, match="broken"):
        run(
            ServerGroup(servers),
            on_ready=lambda: socket.create_connection(servers[0].server_address).close(),
        )
    assert all(server.state is everserve.ServerState.STOPPED for server in servers)


def test_outside_the_main_thread_signals_are_not_changed() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def body() -> None:
        with receiving([signal.SIGTERM], print):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert seen == [before]


PROGRAM = """
import everserve, signal, sys
from everserve.events import Draining
from everserve.process.run import run

class Echo(everserve.StreamRequestHandler):
    def handle(self):
        self.wfile.write(b"hello\\n")
        for line in self.rfile:
            self.wfile.write(line)

server = everserve.ThreadingTCPServer(("127.0.0.1", 0), Echo)
server.subscribe(lambda event: isinstance(event, Draining) and print("draining", flush=True))
before = signal.getsignal(signal.SIGTERM)
report = run(
    everserve.ServerGroup([server]),
    grace=float(sys.argv[1]),
    on_ready=lambda: print(server.server_address[1], flush=True),
    on_signal=lambda number: print(number.name, flush=True),
)
assert signal.getsignal(signal.SIGTERM) == before
print(report.finished, len(report.cut), flush=True)
"""


def start(grace: float) -> tuple["subprocess.Popen[str]", socket.socket]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(grace)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    client = socket.create_connection(("127.0.0.1", int(process.stdout.readline())))
    assert client.recv(100) == b"hello\n"
    return process, client


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_drains(number: signal.Signals) -> None:
    process, client = start(grace=3600)
    with process, client:
        assert process.stdout is not None
        process.send_signal(number)
        assert process.stdout.readline() == f"{number.name}\n"
        assert process.stdout.readline() == "draining\n"
        client.sendall(b"still served\n")
        assert client.recv(100) == b"still served\n"
        client.close()
        assert process.stdout.readline() == "1 0\n"
    assert process.returncode == 0


def test_a_second_signal_cuts() -> None:
    process, client = start(grace=3600)
    with process, client:
        assert process.stdout is not None
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "SIGTERM\n"
        assert process.stdout.readline() == "draining\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "SIGINT\n"
        assert client.recv(100) == b""
        assert process.stdout.readline() == "0 1\n"
    assert process.returncode == 0


def test_the_grace_ends_by_itself() -> None:
    process, client = start(grace=0)
    with process, client:
        assert process.stdout is not None
        process.send_signal(signal.SIGTERM)
        assert client.recv(100) == b""
        assert process.stdout.read() == "SIGTERM\ndraining\n0 1\n"


# -- a handler that does not end -----------------------------------------------------------------

DEAF = """
import everserve, sys, threading, time
from everserve.process import run
from everserve.server import stop

stop.LAST_WAIT = run._LAST_TURN = 0.05

class Holds(everserve.StreamRequestHandler):
    def handle(self):
        self.wfile.write(b"x")
        self.wfile.flush()
        self.hold()

    def hold(self):
        how = sys.argv[2]
        if how == "spins":
            while True:
                pass
        if how == "closes":
            self.request.close()
        threading.Event().wait()

def ready(servers):
    print(servers[0].server_address[1], flush=True)

report = everserve.serve(
    Holds, "tcp://127.0.0.1:0", "tcp://127.0.0.1:0", concurrency=sys.argv[1],
    grace=float(sys.argv[3]), on_ready=ready,
)
print(len(report.cut), len(report.unfinished), report.complete, flush=True)
"""


def hold(*arguments: str) -> tuple["subprocess.Popen[str]", socket.socket]:
    process = subprocess.Popen(
        [sys.executable, "-c", DEAF, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    client = socket.create_connection(("127.0.0.1", int(process.stdout.readline())))
    assert client.recv(1) == b"x"
    return process, client


@pytest.mark.parametrize(
    ("concurrency", "how"),
    [
        ("serial", "waits"),
        ("fibers", "waits"),
        ("fibers", "spins"),
        ("fibers", "closes"),
        ("threads", "waits"),
        ("threads", "closes"),
        ("pool", "waits"),
    ],
)
def test_a_handler_that_does_not_end_does_not_keep_the_process(concurrency: str, how: str) -> None:
    process, client = hold(concurrency, how, "0")
    with client:
        process.terminate()
        out, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 1
    assert out.startswith("1 1 ")
    assert "does not end: " in err
    assert ", in hold\n" in err


def test_a_second_signal_ends_it_before_the_grace() -> None:
    process, client = hold("fibers", "waits", "3600")
    with client:
        process.terminate()
        process.send_signal(signal.SIGINT)  # another one: two of a kind may come as one
        process.communicate(timeout=LIMIT)
    assert process.returncode == 1


def test_a_process_that_cuts_children_ends_as_if_they_had_ended() -> None:
    process, client = hold("forks", "waits", "0")
    with client:
        process.terminate()
        assert process.communicate(timeout=LIMIT)[0] == "1 0 True\n"
    assert process.returncode == 0


def test_what_on_ready_raises_stops_the_servers_and_is_raised() -> None:
    servers = [make(), make()]
    with pytest.raises(ZeroDivisionError):
        run(ServerGroup(servers), on_ready=lambda: 1 // 0)
    assert all(server.state is everserve.ServerState.STOPPED for server in servers)


def test_a_stop_that_fails_is_raised() -> None:
    server = make()
    server.server_close = lambda: 1 // 0  # type: ignore[method-assign, assignment]
    with pytest.raises(ZeroDivisionError):
        run(ServerGroup([server]), on_ready=server.shutdown)
    del server.server_close
    server.server_close()
