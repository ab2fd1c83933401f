"""The load generator: it stays on loopback, is bounded, and notices a server that cheats."""

import json
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from benchmarks.measure import HERE, Settings, compiled, run_load, served
from benchmarks.peers import PEERS

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")

SETTINGS = Settings(server_core=None, load_core=None, seconds=0.1, warmup=0.02, idle=20)
SMALL = ("--connections", "4", "--bytes", "64")


def load(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(compiled(HERE / "load.c")), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


@contextmanager
def answering(answer: bytes) -> Iterator[int]:
    """The port of a server that sends ``answer`` to its first client and then leaves."""

    def serve() -> None:
        client, _ = listener.accept()
        with client:
            client.recv(4096)
            client.sendall(answer)
            client.shutdown(socket.SHUT_WR)
            client.recv(4096)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(10)


@pytest.mark.parametrize(
    "wrong",
    [
        ("--host", "192.0.2.1"),
        ("--connections", "30000"),
        ("--connections", "15000", "--idle", "15000"),
        ("--seconds", "100000"),
        ("--bytes", "many"),
    ],
    ids=lambda wrong: wrong[0],
)
def test_refuses_what_is_out_of_bounds(wrong: tuple[str, ...]) -> None:
    done = load("echo", "--port", "9", *wrong)
    assert done.returncode == 2
    assert done.stdout == ""


def test_refuses_an_unknown_mode() -> None:
    assert load("flood", "--port", "9").returncode == 2


def test_ends_with_a_message_where_nobody_listens() -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        done = load("echo", "--port", str(unheard.getsockname()[1]))
    assert done.returncode == 1
    assert "connect" in done.stderr


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (b"x" * 64, "something else came back than was sent"),
        (b"x" * 65, "more came back than was sent"),
        (b"", "closed by the server"),
    ],
    ids=["wrong", "long", "none"],
)
def test_notices_a_wrong_reply(answer: bytes, fault: str) -> None:
    with answering(answer) as port:
        done = load(
            "echo",
            *("--port", str(port), "--connections", "1", "--bytes", "64"),
            *("--seconds", "0.2", "--warmup", "0"),
        )
    result = json.loads(done.stdout)
    assert result["errors"] == 1
    assert fault in result["first_error"]


@pytest.mark.parametrize(
    ("mode", "arguments"),
    [
        ("echo", ("echo", *SMALL)),
        ("echo", ("echo", *SMALL, "--idle", "20")),
        ("echo", ("echo", "--connections", "2", "--bytes", "3000000")),
        ("echo", ("connect", *SMALL)),
        ("lines", ("echo", *SMALL, "--lines", "64")),
        ("udp", ("udp", *SMALL, "--window", "8")),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_measures_an_honest_server(mode: str, arguments: tuple[str, ...]) -> None:
    with served(PEERS["c"], mode, "unused", SETTINGS) as server:
        figures = run_load(server, SETTINGS, *arguments)
    assert figures["messages"] > 0
    assert figures["errors"] == figures["starved"] == 0
