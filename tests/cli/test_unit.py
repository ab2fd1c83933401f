"""``everserve unit``: from a command line to units that systemd accepts, and that serve."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import click
import pytest
from tests.cli.test_commands import UPPER, UPPER_UDP
from tests.clients import LIMIT

from everserve.cli.unit import unit

MANY = [
    f"{UPPER}=tcp://127.0.0.1:7001", f"{UPPER}=unix:s", f"{UPPER_UDP}=udp://*:7001",
    "--max-connections", "5000", "--no-coalesce-writes", "--overload-message", "50% $x\\r\\n",
    "--socket-mode", "660", "--user", "daemon", "--umask", "027", "--pid", "/run/x", "--grace", "30",
    "--request-queue-size", "100", "--allow-reuse-port", "--dual-stack",
]  # fmt: skip


def write(folder: Path, *arguments: str) -> dict[str, list[str]]:
    """The lines of the units for a command line."""
    words = ["--name", "app", "--into", str(folder), *arguments]
    unit.main(words, prog_name="everserve unit", standalone_mode=False)
    return {file.name: file.read_text().splitlines() for file in folder.iterdir()}


def command_of(lines: list[str]) -> list[str]:
    (line,) = (line for line in lines if line.startswith("ExecStart="))
    return shlex.split(line.removeprefix("ExecStart="))


def test_options_become_lines_or_stay(tmp_path: Path) -> None:
    units = write(tmp_path, *MANY)
    assert sorted(units) == ["app-2.socket", "app-3.socket", "app.service", "app.socket"]
    lines = units["app.service"]
    assert command_of(lines)[:4] == [sys.executable, "-m", "everserve", "run"]
    assert command_of(lines)[4:] == [
        f"{UPPER}=systemd:app", f"{UPPER}=systemd:app-2", f"{UPPER_UDP}=systemd:app-3",
        "--grace", "30", "--max-connections", "5000", "--no-coalesce-writes",
        "--request-queue-size", "100", "--overload-message", "50%% $$x\\r\\n",
    ]  # fmt: skip
    assert {"User=daemon", "UMask=0027", "TimeoutStopSec=36", "LimitNOFILE=32768"} <= set(lines)
    assert f"WorkingDirectory={os.getcwd()}" in lines
    assert {"ListenStream=127.0.0.1:7001", "NoDelay=yes", "Backlog=100"} <= set(units["app.socket"])
    assert {f"ListenStream={os.getcwd()}/s", "SocketMode=0660"} <= set(units["app-2.socket"])
    assert {"ListenDatagram=7001", "BindIPv6Only=both"} <= set(units["app-3.socket"])
    assert "NoDelay=yes" not in units["app-3.socket"]


def test_workers_can_be_reloaded(tmp_path: Path) -> None:
    lines = write(tmp_path, UPPER, "--workers", "2", "--replace", "--reload")["app.service"]
    assert command_of(lines)[4:] == [f"{UPPER}=systemd:app", "--workers", "2"]
    assert "ExecReload=/bin/kill -HUP $MAINPID" in lines


def test_systemd_accepts_them(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed: apt-get install systemd")
    units = [str(tmp_path / name) for name in write(tmp_path, *MANY)]
    for words in (["verify"], ["security", "--offline=true", "--threshold=25"]):
        files = units if words == ["verify"] else [str(tmp_path / "app.service")]
        done = subprocess.run(
            ["systemd-analyze", "--no-pager", *words, *files],
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "app" not in done.stderr


def test_the_command_of_the_unit_serves_the_sockets_of_the_unit(tmp_path: Path) -> None:
    command = shutil.which("systemd-socket-activate")
    if command is None:
        pytest.skip("systemd-socket-activate is not installed: apt-get install systemd")
    path = tmp_path / "s"
    units = tmp_path / "units"
    units.mkdir()
    words = command_of(
        write(units, UPPER, "-b", f"unix:{path}", "--idle-timeout", "60")["app.service"]
    )
    environment = ["-E", "PYTHONPATH"]
    with subprocess.Popen(
        [command, "-l", str(path), "--fdname=app", *environment, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        process.stderr.readline()
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(LIMIT)
            client.connect(str(path))
            client.sendall(b"hello\n")
            assert client.recv(100) == b"HELLO\n"
        process.terminate()
        process.communicate(timeout=LIMIT)
    assert process.returncode == 0


def test_they_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    unit.main([UPPER], prog_name="everserve unit", standalone_mode=False)
    heads = [line for line in capsys.readouterr().out.splitlines() if line.startswith("# ")]
    folder = "/etc/systemd/system"
    assert heads == [f"# {folder}/upper_tcp.service", f"# {folder}/upper_tcp.socket"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([UPPER, "--name", "a b"], "letters, digits"),
        ([UPPER, "-b", "tls://*:1", "-b", "tcp://*:2"], "a certificate is for all"),
        ([UPPER, "-b", "tcp://*:0"], "needs a port"),
        ([UPPER, "--max-workers", "0"], "expected a number from 1 up"),
    ],
)
def test_what_cannot_be_a_unit(arguments: list[str], words: str) -> None:
    with pytest.raises(click.UsageError) as raised:
        unit.main(arguments, prog_name="everserve unit", standalone_mode=False)
    assert words in raised.value.format_message()
