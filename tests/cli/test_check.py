"""``everserve check``: what ``run`` would say, with nothing bound."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
from tests.certificates import Certificates
from tests.cli.test_commands import UPPER, UPPER_UDP, everserve

from everserve.cli.check import check
from everserve.cli.commands import run


@pytest.fixture(autouse=True)
def _own_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command runs in this process: it is not to change its log."""
    monkeypatch.setattr("everserve.cli.plan.configure_log", lambda *_: None)


def checked(*arguments: str) -> str | None:
    """The line of the error, ``None`` if there is none."""
    try:
        check.main([*arguments], prog_name="everserve check", standalone_mode=False)
    except click.UsageError as error:
        return error.format_message()
    return None


def test_it_has_the_options_of_run() -> None:
    assert check.params == run.params


def test_the_exit_statuses() -> None:
    done = everserve("check", UPPER, "-b", "tcp://127.0.0.1:0", "-b", "unix:x.sock")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "everserve: tcp://127.0.0.1:0, unix:x.sock: would be served\n"
    assert not Path("x.sock").exists()
    done = everserve("check", UPPER, "-b", "tcp://192.0.2.1:80")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


@pytest.mark.parametrize(
    "arguments",
    [
        [UPPER, "-b", "tcp://*:0"],
        [UPPER, "-b", "tcp://localhost:0", "-b", "tcp://[::1]:0", "-b", "unix:@name"],
        [UPPER, "-b", "fd://77", "-b", "systemd:web"],
        [f"{UPPER}=tcp://127.0.0.1:0", f"{UPPER_UDP}=udp://127.0.0.1:0"],
        [UPPER, "--user", "nobody"],
    ],
    ids=lambda words: " ".join(words[1:]),
)
def test_what_would_do(arguments: list[str]) -> None:
    assert checked(*arguments) is None


def test_an_address_in_use_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.create_server(("127.0.0.1", 0)) as one, socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        port = one.getsockname()[1]
        assert checked(UPPER, "-b", f"tcp://127.0.0.1:{port}", "-b", f"unix:{path}") is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["no_such_module:H"], "there is no module 'no_such_module'"),
        ([UPPER_UDP], "Upper is for datagrams"),
        ([UPPER, "-b", "tcp://192.0.2.1:80"], "192.0.2.1:80: is not an address of this machine"),
        ([UPPER, "-b", "tcp://[2001:db8::1]:80"], "[2001:db8::1]:80: is not an address of this"),
        ([UPPER, "-b", "tcp://no-such-host.invalid:1"], "invalid:1: there is no host with this"),
        ([UPPER, "-b", "unix:/no/such/folder/s"], "no such directory"),
        ([UPPER, "-b", "unix:/etc/passwd"], "a file that is no socket is there"),
        ([UPPER, "-b", f"unix:{'x' * 120}"], "at most 107 bytes"),
        ([UPPER, "-b", "tls://127.0.0.1:0"], "needs a certificate"),
        ([UPPER, "--tls-cert", "/no/such/file"], "/no/such/file"),
        ([UPPER, "--user", "no-such-user"], "no user 'no-such-user'"),
        ([UPPER, "--chdir", "/no/such/folder"], "--chdir /no/such/folder: No such file"),
        ([UPPER, "--pid", "/no/such/folder/pid"], "there is no such folder"),
        ([UPPER, "--umask", "9"], "expected permission bits such as 027"),
        ([UPPER, "--max-workers", "3"], "max_workers has no meaning"),
    ],
)
def test_what_would_not_do(arguments: list[str], words: str) -> None:
    found = checked(*arguments)
    assert found is not None
    assert words in found


def test_certificates_are_read(tmp_path: Path, tmp_path_factory: Any) -> None:
    certificates = Certificates(tmp_path_factory.mktemp("certificates"))
    cert, key = map(str, certificates.server)
    tls = ["-b", "tls://127.0.0.1:0", "--tls-cert", cert]
    assert checked(UPPER, *tls, "--tls-key", key) is None
    other = tmp_path / "other.key"
    subprocess.run(
        ["openssl", "genrsa", "-out", other], check=True, capture_output=True, timeout=50
    )
    assert "key" in (checked(UPPER, *tls, "--tls-key", str(other)) or "")
