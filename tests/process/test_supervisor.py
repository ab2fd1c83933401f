"""The supervisor and its workers, as processes: what kills them, what signals do."""

from __future__ import annotations

import os
import re
import signal
import socket
from pathlib import Path

import pytest
from tests.clients import LIMIT
from tests.process.supervised import HANDLER, Client, await_end, has_ended, supervised, until

STRATEGIES = ["fibers", "threads", "pool", "forks", "serial"]


def test_every_worker_serves_and_all_drain(tmp_path: Path) -> None:
    with supervised(tmp_path, workers=2) as server:
        clients = [server.client() for _ in range(8)]
        pids = {client.ask()[0] for client in clients}
        assert len(pids) == 2
        server.send(signal.SIGTERM)
        server.await_line("SIGTERM: draining")
        until(lambda: clients[0].ask()[3] == "True")
        for client in clients:
            assert client.ask()
            client.close()
        assert server.wait() == 0
        assert "8 finished, 0 cut" in server.await_line("stopped")
        assert all(map(has_ended, map(int, pids)))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy(tmp_path: Path, strategy: str) -> None:
    with supervised(tmp_path, "--concurrency", strategy) as server:
        with server.client() as client:
            assert client.ask()[1] == "one"
        assert server.end() == 0
        assert not [line for line in server.errors if "ERROR" in line]


def test_a_second_signal_cuts(tmp_path: Path) -> None:
    with supervised(tmp_path, "--grace", "3600") as server, server.client() as client:
        client.ask()
        server.send(signal.SIGTERM)
        server.await_line("SIGTERM: draining")
        assert server.end(signal.SIGINT) == 0
        assert client.ask() == []
        assert "0 finished, 1 cut" in server.await_line("stopped")


def test_quit_cuts(tmp_path: Path) -> None:
    with supervised(tmp_path, "--grace", "3600") as server, server.client() as client:
        client.ask()
        assert server.end(signal.SIGQUIT) == 0
        assert client.ask() == []


def test_a_killed_worker_costs_its_own_connections(tmp_path: Path) -> None:
    with supervised(tmp_path) as server:
        clients = [server.client() for _ in range(8)]
        victim = clients[0].ask()[0]
        others = [client for client in clients if client.ask()[0] != victim]
        os.kill(int(victim), signal.SIGKILL)
        assert clients[0].ask() == []
        assert others
        assert all(client.ask() for client in others)
        assert f"worker {victim} was killed by signal 9" in server.await_line(
            "killed by", errors=True
        )
        for client in clients:
            client.close()
        until(lambda: server.ask()[0] not in (victim, others))
        assert server.end() == 0


def test_a_worker_that_crashes_young_is_replaced_later(tmp_path: Path) -> None:
    with supervised(tmp_path, workers=1) as server:
        for _ in range(3):
            server.ask("crash")
        assert server.ask()[1] == "one"
        assert "ended with status 7" in server.await_line("status 7", errors=True)
        assert server.end() == 0


def test_the_workers_end_soon_after_their_supervisor(tmp_path: Path) -> None:
    with supervised(tmp_path) as server:
        clients = [server.client() for _ in range(4)]
        pids = {int(client.ask()[0]) for client in clients}
        server.process.kill()
        server.process.wait()
        for pid in pids:
            await_end(pid)
        for client in clients:
            assert client.ask() == []
            client.close()


SESSIONS = """
import everserve

class Answer(everserve.DatagramSessionHandler):
    def handle(self):
        for datagram in self.datagrams:
            self.send(datagram)
"""


def test_a_handler_may_stop_the_whole_server(tmp_path: Path) -> None:
    with supervised(tmp_path, "--concurrency", "threads") as server:
        server.ask("stop")
        assert server.wait() == 0


def test_hup_loads_the_code_anew(tmp_path: Path) -> None:
    with supervised(tmp_path) as server, server.client() as old:
        assert old.ask()[1] == "one"
        (tmp_path / "answer.py").write_text(HANDLER.replace('"one"', '"two"'))
        server.send(signal.SIGHUP)
        until(lambda: server.ask()[1] == "two")
        until(lambda: old.ask()[3] == "True")
        assert old.ask()[1] == "one"  # it may go on to its end
        old.close()
        assert server.end() == 0


def test_new_code_that_fails_leaves_the_old_workers(tmp_path: Path) -> None:
    with supervised(tmp_path) as server:
        (tmp_path / "answer.py").write_text("import no_such_module_at_all")
        server.send(signal.SIGHUP)
        line = server.await_line("the old workers go on", errors=True)
        assert "no_such_module_at_all" in line
        assert server.ask()[1] == "one"
        (tmp_path / "answer.py").write_text(HANDLER.replace('"one"', '"two"'))
        server.send(signal.SIGHUP)
        until(lambda: server.ask()[1] == "two")
        assert server.end() == 0


def test_the_number_of_workers_follows_ttin_and_ttou(tmp_path: Path) -> None:
    with supervised(tmp_path, "--max-connections", "12") as server:
        assert server.ask()[2] == "6"
        server.send(signal.SIGTTIN)
        until(lambda: server.ask()[2] == "4")
        for lines in (1, 2):  # two signals at once may be one
            server.send(signal.SIGTTOU)
            until(lambda: sum("SIGTTOU" in line for line in server.lines) == lines)  # noqa: B023
        until(lambda: server.ask()[2] == "12")
        assert server.end() == 0


@pytest.mark.parametrize(
    ("handler", "arguments", "workers", "reason"),
    [
        (HANDLER, ("--max-connections", "2"), 2, "max_connections = 2"),
        (SESSIONS, ("--bind", "udp://127.0.0.1:0"), 1, "sessions of datagrams"),
    ],
    ids=["limit", "sessions"],
)
def test_ttin_makes_no_more_workers_than_suit(
    tmp_path: Path, handler: str, arguments: tuple[str, ...], workers: int, reason: str
) -> None:
    with supervised(tmp_path, *arguments, workers=workers, handler=handler) as server:
        server.send(signal.SIGTTIN)
        line = server.await_line("there are no more workers", errors=True)
        assert f"than {workers}: " in line
        assert reason in line
        assert server.end() == 0


def test_usr2_dumps_and_usr1_opens_log_files_anew(tmp_path: Path) -> None:
    log = tmp_path / "log"
    config = tmp_path / "log.toml"
    config.write_text(
        f"""
version = 1
disable_existing_loggers = false
root = {{ level = "INFO", handlers = ["file"] }}
handlers = {{ file = {{ class = "logging.FileHandler", filename = "{log}" }} }}
"""
    )
    with supervised(tmp_path, "--log-config", str(config), workers=1, levels=False) as server:
        log.rename(tmp_path / "old")
        server.send(signal.SIGUSR1)
        until(log.exists)
        until(lambda: server.ask("log") and "here" in log.read_text())
        server.send(signal.SIGUSR2)
        until(lambda: sum("most recent call first" in line for line in server.errors) >= 2)
        assert server.ask()
        assert server.end() == 0


def test_a_storm_of_signals(tmp_path: Path) -> None:
    with supervised(tmp_path) as server:
        for _ in range(20):
            for number in (signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR1):
                server.send(number)
        assert server.ask()[1] == "one"
        status = server.end()
        assert status == 0, "".join(server.lines + server.errors)


def test_a_worker_that_stalls_is_dumped_and_replaced(tmp_path: Path) -> None:
    with supervised(
        tmp_path, "--worker-timeout", "2", "--stall-threshold", "30", workers=1
    ) as server:
        pid = server.ask()[0]
        with server.client() as client:
            client.say("spin")
            assert f"worker {pid} stalls" in server.await_line("worker .* stalls", errors=True)
            server.await_line("in handle", errors=True)
            until(lambda: server.ask()[:1] not in ([], [pid]))
        assert server.end() == 0


def test_max_requests_replaces_a_worker(tmp_path: Path) -> None:
    with supervised(tmp_path, "--max-requests", "5", workers=1) as server:
        pids = set()
        until(lambda: pids.add(server.ask()[0]) or len(pids) > 1)
        assert re.search(r"after \d+ requests", server.await_line("is replaced", errors=True))
        assert server.end() == 0


def test_max_memory_replaces_a_worker(tmp_path: Path) -> None:
    with supervised(tmp_path, "--max-memory", "1M", workers=1) as server:
        assert re.search(r"after \d+ bytes", server.await_line("is replaced", errors=True))
        assert server.ask()
        assert server.end() == 0


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("import no_such_module_at_all", "no_such_module_at_all"),
        ("import os; os._exit(3)", "the process that loads the code has ended"),
        (
            HANDLER
            + "\nimport os, threading\nos.register_at_fork(after_in_child=lambda: os._exit(9))",
            "no worker can start: the last one ended with status 9",
        ),
    ],
    ids=["import", "exit", "worker"],
)
def test_where_none_can_start_one_line_says_so(tmp_path: Path, code: str, line: str) -> None:
    with supervised(tmp_path, handler=code, ready=False) as server:
        assert server.wait() == 1
        assert line in server.errors[-1]
        others = [one for one in server.errors[:-1] if "is replaced" not in one]
        assert not others


def test_the_death_of_a_template_stops_nothing(tmp_path: Path) -> None:
    with supervised(tmp_path) as server, server.client() as client:
        pid = int(client.ask()[0])
        template = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        assert template != server.process.pid
        os.kill(template, signal.SIGKILL)
        server.await_line("the code is loaded anew", errors=True)
        assert client.ask()[0] == str(pid)
        until(lambda: client.ask()[3] == "True")  # its successor accepts
        client.close()
        assert server.ask()
        assert server.end() == 0


DATAGRAMS = """
import everserve

class Answer(everserve.DatagramRequestHandler):
    def handle(self):
        self.wfile.write(self.rfile.read().upper())
"""


@pytest.mark.parametrize("strategy", ["fibers", "threads"])
def test_datagrams(tmp_path: Path, strategy: str) -> None:
    arguments = ("--bind", "udp://127.0.0.1:0", "--concurrency", strategy)
    with supervised(tmp_path, *arguments, handler=DATAGRAMS) as server:
        with socket.socket(type=socket.SOCK_DGRAM) as client:
            client.settimeout(LIMIT)
            client.connect(server.address)
            for number in range(20):
                client.send(b"hello %d" % number)
                assert client.recv(100) == b"HELLO %d" % number
        assert server.end() == 0
        assert not [line for line in server.errors if "ERROR" in line]


def test_the_file_of_a_unix_socket_lives_as_long_as_the_server(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with supervised(tmp_path, "--bind", f"unix:{path}") as server:

        def ask() -> str:
            with Client(str(path)) as client:
                return client.ask()[0]

        pid = ask()
        server.send(signal.SIGHUP)
        until(lambda: ask() != pid)
        assert path.exists()
        assert server.end() == 0
    assert not path.exists()


def test_signals_to_all_processes_end_them_in_order(tmp_path: Path) -> None:
    with supervised(tmp_path) as server:
        parent = int(
            Path(f"/proc/{server.ask()[0]}/stat").read_text().rpartition(")")[2].split()[1]
        )
        os.kill(parent, signal.SIGTERM)  # the template, as systemd does it too
        os.kill(int(server.ask()[0]), signal.SIGTERM)
        server.await_line("is replaced", errors=True)
        until(lambda: server.ask())
        assert not [line for line in server.errors if "loaded anew" in line]
        assert server.end() == 0
