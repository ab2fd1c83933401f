"""``serve(workers=...)``: what the process that calls it knows of all workers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.certificates import Certificates

PROGRAM = """
import os, socket, ssl, sys, threading
import everserve
from everserve.events import Failed, Finished

class Answer(everserve.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            if line == b"fail\\n":
                raise LookupError("as asked")
            self.wfile.write(b"%d\\n" % os.getpid())

def connect(address):
    client = socket.create_connection(address, 20)
    return client, client.makefile("rb")

def ask(client, word=b"x\\n"):
    client[0].sendall(word)
    return client[1].readline()

def body(servers):
    BODY

def ready(servers):
    threading.Thread(target=run, args=(servers,)).start()

def run(servers):
    try:
        body(servers)
    finally:
        servers[0].stop(0.2)

events = []
stopped = []
changed = threading.Condition()

def note(event):
    with changed:
        events.append(event)
        changed.notify()

def wait_for(kind):
    with changed:
        assert changed.wait_for(lambda: any(type(e) is kind for e in events), 20), events
        return next(e for e in events if type(e) is kind)

report = everserve.serve(
    Answer, "tcp://127.0.0.1:0", workers=2, on_ready=ready, OPTIONS
)
print([server.state.name for server in stopped])
print(report.finished, len(report.cut), [c.worker > 0 for c in report.cut])
print([type(e).__name__ for e in events if type(e).__name__ in ("Serving", "Draining", "Stopped")])
"""


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


def run(body: str, folder: Path, options: str = "subscribe=note") -> list[str]:
    """The lines that the program prints, with ``body`` as what a client does."""
    lines = ("\n" + " " * 4).join(body.strip().splitlines())
    program = PROGRAM.replace("BODY", lines).replace("OPTIONS", options)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_connections_refusals_events_and_the_report(tmp_path: Path) -> None:
    assert run(
        """
clients = [connect(servers[0].server_address) for _ in range(6)]
pids = {int(ask(client)) for client in clients}
seen = servers[0].connections
print(len(seen), {c.worker for c in seen} == pids, {c.peer for c in seen} == {
    c[0].getsockname() for c in clients})
print(servers[0].state, servers[0].draining, servers[0].refusals)
ask(clients[0], b"fail\\n")
failed = wait_for(Failed)
print(failed.error, failed.worker in pids, failed.server.startswith("Answer on tcp"))
clients[1][1].close(); clients[1][0].close()
print(wait_for(Finished).worker in pids)
while len(servers[0].connections) > 4:  # the one that failed is closed after its event
    pass
stopped.append(servers[0])
servers[0].stop(0)
""",
        tmp_path,
    ) == [
        "6 True True",
        "ServerState.SERVING False {}",
        "LookupError('as asked') True True",
        "True",
        "['STOPPED']",
        "0 4 [True, True, True, True]",
        "['Serving', 'Draining', 'Stopped']",
    ]


def test_refusals_are_those_of_all_workers(tmp_path: Path) -> None:
    lines = run(
        """
kept = []
while len({ask(client) for client in kept}) < 2:  # until each worker has its one
    client = connect(servers[0].server_address)
    answer = ask(client)
    if answer.strip().isdigit():
        kept.append(client)
before = servers[0].refusals.get("max_connections", 0)
refused = connect(servers[0].server_address)
print(refused[1].readline())
print(servers[0].refusals["max_connections"] - before)
""",
        tmp_path,
        'max_connections=2, overload="refuse", overload_message=b"full\\n"',
    )
    assert lines[:2] == ["b'full\\n'", "1"]


def test_suspend_and_resume_reach_all_workers(tmp_path: Path) -> None:
    assert run(
        """
servers[0].suspend()
print(servers[0].state, len(servers[0].connections))
client = connect(servers[0].server_address)
client[0].sendall(b"x\\n")
print(len(servers[0].connections))
servers[0].resume()
print(int(client[1].readline()) > 0)
""",
        tmp_path,
    )[:3] == ["ServerState.SUSPENDED 0", "0", "True"]


def test_tls(tmp_path: Path, certificates: Certificates) -> None:
    pair = certificates.server
    assert (
        run(
            """
context = ssl.create_default_context(cafile=CA)
with context.wrap_socket(connect(servers[0].server_address)[0], server_hostname="localhost") as s:
    s.sendall(b"x\\n")
    print(int(s.recv(100)) > 0)
""".replace("CA", repr(str(certificates.authority))),
            tmp_path,
            f"tls=everserve.TLS({str(pair.cert)!r}, {str(pair.key)!r})",
        )[0]
        == "True"
    )


@pytest.mark.parametrize("strategy", ["fibers", "threads"])
def test_the_balance(tmp_path: Path, strategy: str) -> None:
    """No worker has more than 1.5 times the mean of 64 connections.

    On a busy machine one of them may not run for a while, and the other has to take what waits.
    """
    found = run(
        """
for _ in range(5):
    clients = [connect(servers[0].server_address) for _ in range(64)]
    pids = [ask(client) for client in clients]
    counts = [pids.count(pid) for pid in set(pids)]
    if len(counts) == 2 and max(counts) <= 48:
        break
    for file, client in clients:
        client.close()
        file.close()
print(len(counts), max(counts) <= 48)
""",
        tmp_path,
        f"concurrency={strategy!r}",
    )
    assert found[0] == "2 True"
