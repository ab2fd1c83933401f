"""The units, the configuration of HAProxy and the script of the page *Deploy*, as they are there."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.docs.blocks import DOCS, Block, blocks_of

pytestmark = pytest.mark.usefixtures("unmeasured")

LIMIT = 15.0
BLOCKS = blocks_of(DOCS / "deploy.md")


def block(language: str, words: str = "") -> Block:
    (found,) = (b for b in BLOCKS if b.language == language and words in b.code)
    return found


def test_every_kind_of_block_has_a_test() -> None:
    """Those of console and toml are tested in ``test_console``."""
    assert {b.language for b in BLOCKS} == {"console", "toml", "ini", "haproxy", "sh"}
    assert all("haproxy" in b.code for b in BLOCKS if b.language == "sh")


# -- systemd -------------------------------------------------------------------------------------


def test_the_units_are_those_of_the_command(folder: Path) -> None:
    command, _ = block("console", "everserve unit").code.splitlines()
    words = shlex.split(command.removeprefix("$ "))
    done = subprocess.run(
        [sys.executable, "-m", *words],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=True,
        cwd=folder,
    )
    found = done.stdout.replace(f"{sys.executable} -m everserve", "/srv/upper/bin/everserve")
    found = found.replace(f"WorkingDirectory={folder}", "WorkingDirectory=/srv/upper")
    found = found.replace("ProtectHome=read-only", "ProtectHome=yes")  # where this Python is
    assert found.strip() == block("ini").code.strip()


# -- HAProxy -------------------------------------------------------------------------------------


def ended(process: subprocess.Popen[Any]) -> int:
    """End the process; its exit status."""
    with process:
        process.terminate()
        try:
            process.communicate(timeout=LIMIT)
        finally:
            process.kill()
    return process.returncode


class Servers:
    """The two servers of the page, on ports that are free; ``restart`` as ``systemctl`` does."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        commands = block("console", "--proxy-protocol").code.splitlines()
        self._words = {
            name: shlex.split(command.removeprefix("$ "))
            for name, command in zip(("one", "two"), commands, strict=True)
        }
        self.ports: dict[str, int] = {}
        self._processes: dict[str, subprocess.Popen[str]] = {}
        for name in self._words:
            self.start(name)

    def start(self, name: str) -> None:
        """Start one, and wait until it accepts."""
        port = self.ports.get(name, 0)
        words = [re.sub(r"(tcp://127.0.0.1:)\d+", rf"\g<1>{port}", w) for w in self._words[name]]
        process = subprocess.Popen(
            [sys.executable, "-m", *words], stdout=subprocess.PIPE, text=True, cwd=self._folder
        )
        self._processes[name] = process
        assert process.stdout is not None
        while "press Ctrl-C" not in (line := process.stdout.readline()):
            assert line, "the server has ended"
            if found := re.search(r"listening on tcp://127.0.0.1:(\d+)", line):
                self.ports[name] = int(found[1])

    def stop(self, name: str) -> None:
        assert ended(self._processes.pop(name)) == 0

    def restart(self, name: str) -> None:
        self.stop(name)
        self.start(name)

    def close(self) -> None:
        for name in tuple(self._processes):
            self.stop(name)


@pytest.fixture
def servers(folder: Path) -> Iterator[Servers]:
    running = Servers(folder)
    yield running
    running.close()


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder with a short name, for the socket of HAProxy."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture
def front(servers: Servers, place: Path) -> Iterator[Any]:
    """The address of HAProxy with the configuration of the page, but for its addresses."""
    command = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
    if command is None:
        pytest.skip("haproxy is not installed: apt-get install haproxy")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        text = block("haproxy").code.replace("bind :9999", f"bind fd@{listener.fileno()}")
        text = text.replace("maxconn 5000", "maxconn 100")  # descriptors may be few here
        text = text.replace("/run/haproxy/admin.sock", f"{place}/admin.sock")
        text = text.replace("127.0.0.1:9001", f"127.0.0.1:{servers.ports['one']}")
        text = text.replace("127.0.0.1:9002", f"127.0.0.1:{servers.ports['two']}")
        (place / "haproxy.cfg").write_text(text)
        process = subprocess.Popen(
            [command, "-db", "-q", "-f", str(place / "haproxy.cfg")],
            pass_fds=[listener.fileno()],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        address = listener.getsockname()
    yield address
    ended(process)


class Clients:
    """Threads that ask, each request on a connection of its own, until they are stopped."""

    def __init__(self, address: Any, number: int = 3) -> None:
        self._address = address
        self._ended = threading.Event()
        self.answered = 0
        self.lost: list[str] = []
        self._more = threading.Condition()
        self._threads = [threading.Thread(target=self._ask) for _ in range(number)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        while not self._ended.is_set():
            try:
                with socket.create_connection(self._address, LIMIT) as client:
                    client.sendall(b"hello\n")
                    answer = client.recv(100)
            except OSError as error:
                answer = repr(error).encode()
            with self._more:
                if answer == b"HELLO\n":
                    self.answered += 1
                else:
                    self.lost.append(answer.decode())
                self._more.notify_all()

    def go_on(self, number: int = 50) -> None:
        """Wait for so many more answers, or for a request that is lost."""
        with self._more:
            wanted = self.answered + number
            assert self._more.wait_for(lambda: self.lost or self.answered >= wanted, LIMIT)

    def stop(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(LIMIT)


SYSTEMCTL = '#!/bin/sh\necho "$*" > {place}/asked\nread answer < {place}/answered\n'
SOCAT = """#!{python}
import socket, sys
with socket.socket(socket.AF_UNIX) as sock:
    sock.connect(sys.argv[2]); sock.sendall(sys.stdin.buffer.read()); sock.shutdown(1)
    sys.stdout.write(sock.makefile().read())
"""


def commands_of(place: Path) -> dict[str, str]:
    """The environment of the script: its ``socat`` and its ``systemctl`` are ours."""
    folder = place / "bin"
    folder.mkdir()
    texts = {
        "systemctl": SYSTEMCTL.format(place=place),
        "socat": SOCAT.format(python=sys.executable),
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(stat.S_IRWXU)
    for name in ("asked", "answered"):
        os.mkfifo(place / name)
    return os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}


def test_a_rolling_restart_loses_nothing(servers: Servers, front: Any, place: Path) -> None:
    script = block("sh").code.replace("/run/haproxy/admin.sock", f"{place}/admin.sock")
    environment = commands_of(place)
    clients = Clients(front)
    try:
        clients.go_on()
        with subprocess.Popen(
            ["sh", "-e", "-c", script],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            for name in ("one", "two"):
                assert (place / "asked").read_text() == f"restart upper-{name}\n"
                servers.restart(name)
                (place / "answered").write_text("done\n")
            output, _ = process.communicate(timeout=LIMIT)
        assert process.returncode == 0, output
        assert not output.strip()  # HAProxy has no complaint
        clients.go_on()
    finally:
        clients.stop()
    assert not clients.lost
    assert clients.answered > 100


def test_a_server_that_is_down_is_left_out(servers: Servers, front: Any) -> None:
    servers.stop("one")
    clients = Clients(front, number=1)
    clients.go_on(20)
    clients.stop()
    assert not clients.lost
