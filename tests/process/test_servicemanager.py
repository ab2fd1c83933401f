"""``process.servicemanager``: what a service manager hears, and what the real one passes on."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from time import CLOCK_MONOTONIC, clock_gettime_ns, monotonic

import pytest
from tests.certificates import Certificates
from tests.clients import LIMIT

from everserve.process.servicemanager import ServiceManager

ROOT = Path(__file__).parents[2]
UPPER = f"{ROOT}/examples/upper_tcp.py:Upper"


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The socket of a manager, which the environment names."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(LIMIT)
        sock.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield sock


def heard(manager: socket.socket) -> dict[str, str]:
    lines = manager.recv(65536).decode().split("\n")
    return dict(line.split("=", 1) for line in lines)  # type: ignore[misc]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


# -- the messages --------------------------------------------------------------------------------


def test_each_message(manager: socket.socket) -> None:
    told = ServiceManager()
    told.ready("serving\nhere")
    assert heard(manager) == {"READY": "1", "STATUS": "serving here"}
    before = clock_gettime_ns(CLOCK_MONOTONIC) // 1000
    told.reloading()
    reloading = heard(manager)
    after = clock_gettime_ns(CLOCK_MONOTONIC) // 1000
    assert before <= int(reloading.pop("MONOTONIC_USEC")) <= after
    assert reloading == {"RELOADING": "1", "STATUS": "reloading"}
    told.stopping(2.5)
    assert heard(manager)["EXTEND_TIMEOUT_USEC"] == "2500000"
    told.stopping(float("inf"))
    assert heard(manager) == {"STOPPING": "1", "STATUS": "draining"}


def test_an_abstract_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(LIMIT)
        sock.bind(f"\0everserve-test-{os.getpid()}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@everserve-test-{os.getpid()}")
        ServiceManager().ready("here")
        assert heard(sock)["READY"] == "1"


@pytest.mark.parametrize("name", ["", "relative", "/no/such/socket"])
def test_a_manager_that_is_not_there_harms_nothing(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    ServiceManager().ready("here")


def test_the_watchdog(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "40000000")
    told = ServiceManager()
    assert told.next_time is not None
    assert not told.is_due()
    assert 9 < told.next_time - monotonic() <= 10
    told.next_time = 0.0
    assert told.is_due()
    told.keep_alive(False)
    assert not told.is_due()
    told.keep_alive(True)
    assert heard(manager) == {"WATCHDOG": "1"}  # and nothing before it


@pytest.mark.parametrize(
    ("name", "value"), [("WATCHDOG_PID", "1"), ("WATCHDOG_USEC", "0"), ("WATCHDOG_USEC", "x")]
)
def test_no_watchdog(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    monkeypatch.setenv(name, value)
    told = ServiceManager()
    assert told.next_time is None
    assert not told.is_due()


# -- a server ------------------------------------------------------------------------------------


def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "everserve", "run", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | environment,
    )


def test_a_server_tells_its_life(manager: socket.socket, certificates: Certificates) -> None:
    cert, key = map(str, certificates.server)
    tls = ("--bind", "tls://127.0.0.1:0", "--tls-cert", cert, "--tls-key", key, "--grace", "7")
    with start(UPPER, *tls, WATCHDOG_USEC="200000") as process:
        ready = heard(manager)
        while ready == {"WATCHDOG": "1"}:
            ready = heard(manager)
        assert ready["READY"] == "1"
        assert "serving" in ready["STATUS"]
        assert heard(manager) == {"WATCHDOG": "1"}
        process.send_signal(signal.SIGHUP)
        told: list[str] = []
        while len(told) < 2:
            told += [word for word in heard(manager) if word in ("RELOADING", "READY")]
        assert told == ["RELOADING", "READY"]
        process.terminate()
        while "STOPPING" not in (message := heard(manager)):
            assert message == {"WATCHDOG": "1"}
        assert int(message["EXTEND_TIMEOUT_USEC"]) >= 7_000_000
        process.communicate(timeout=LIMIT)
    assert process.returncode == 0


def test_a_held_loop_gives_no_sign_of_life(manager: socket.socket, tmp_path: Path) -> None:
    """A handler that reads a pipe holds the loop of fibers, until something is written to it."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "app.py").write_text(
        "import everserve\n"
        "class Held(everserve.StreamRequestHandler):\n"
        "    def handle(self):\n"
        f"        self.wfile.write(open({str(pipe)!r}).read().encode())\n"
    )
    address = tmp_path / "s"
    target = f"{tmp_path}/app.py:Held=unix:{address}"
    with start(target, "--stall-threshold", "none", WATCHDOG_USEC="200000") as process:
        while "READY" not in heard(manager):
            pass
        assert heard(manager) == {"WATCHDOG": "1"}
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(LIMIT)
            client.connect(str(address))
            manager.settimeout(0.5)  # ten signs would come in this time
            with suppress(TimeoutError):
                while heard(manager):
                    pass
            manager.settimeout(LIMIT)
            pipe.write_text("free")
            assert client.recv(100) == b"free"
        assert heard(manager) == {"WATCHDOG": "1"}
        process.terminate()
        process.communicate(timeout=LIMIT)


def test_a_supervisor_tells_its_life(manager: socket.socket, tmp_path: Path) -> None:
    target = f"{UPPER}=unix:{tmp_path}/s"
    with start(target, "--workers", "2", WATCHDOG_USEC="2000000") as process:
        signs, told = 0, ["READY"]
        while "READY" not in (message := heard(manager)):
            assert message == {"WATCHDOG": "1"}
        assert message["STATUS"].endswith("workers: 2")
        process.send_signal(signal.SIGHUP)
        while len(told) < 3 or not signs:
            message = heard(manager)
            signs += "WATCHDOG" in message
            told += [word for word in message if word in ("RELOADING", "READY")]
        assert told == ["READY", "RELOADING", "READY"]
        process.terminate()
        while "STOPPING" not in (message := heard(manager)):
            assert message == {"WATCHDOG": "1"}
        assert int(message["EXTEND_TIMEOUT_USEC"]) >= 5_000_000
        process.communicate(timeout=LIMIT)
    assert process.returncode == 0


# -- the real one --------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [["--concurrency", "forks"], [], ["--workers", "2"]], ids=" ".join)
def test_systemd_socket_activate(tmp_path: Path, how: list[str]) -> None:
    """It listens, and starts the server at the first connection; two sockets have one name."""
    command = shutil.which("systemd-socket-activate")
    if command is None:
        pytest.skip("systemd-socket-activate is not installed: apt-get install systemd")
    paths = [tmp_path / name for name in ("a", "b", "c")]
    words = [word for path in paths for word in ("-l", str(path))]
    words += [
        "--fdname=web:admin:web",
        "-E",
        "PYTHONPATH",
        sys.executable,
        "-m",
        "everserve",
        "run",
    ]
    words += [f"{UPPER}=systemd:web", f"{UPPER}=systemd:admin", *how]
    with subprocess.Popen(
        [command, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for _ in paths:
            assert "Listening on" in process.stderr.readline()
        for path in paths:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(LIMIT)
                client.connect(str(path))
                client.sendall(b"hello\n")
                assert client.recv(100) == b"HELLO\n"
        process.terminate()
        out, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 0
    assert "--workers" in how or out.count("listening on unix:") == 3  # not all may be ready yet
