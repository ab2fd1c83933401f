"""``--user``, ``--umask``, ``--chdir``, ``--pid``: where and as what the process serves."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli.test_commands import UPPER, everserve, port_of, serving
from tests.clients import LIMIT

WHO = """
import everserve, os
assert os.getuid() != 0, "the code of handlers is loaded as root"
class Who(everserve.StreamRequestHandler):
    def handle(self):
        status = dict(l.split(":", 1) for l in open("/proc/self/status"))
        self.wfile.write(repr((os.getresuid(), os.getcwd(), status["CapPrm"].strip())).encode())
class Lines(everserve.LineRequestHandler):
    @staticmethod
    def handle_message(line):
        return b"%d %s" % (os.getuid(), line)
class Session(everserve.DatagramSessionHandler):
    def handle(self):
        for number, datagram in enumerate(self.datagrams):
            self.send(b"%d %s" % (number, datagram))
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    (folder / "who.py").write_text(WHO)
    yield folder
    shutil.rmtree(folder)


def ask(path: Path) -> str:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(LIMIT)
        client.connect(str(path))
        return client.makefile().read()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("workers", [[], ["--workers", "2"]], ids=["alone", "workers"])
@pytest.mark.parametrize("concurrency", ["serial", "threads", "pool", "forks", "fibers"])
def test_root_is_given_up_once_all_is_bound(
    open_folder: Path, concurrency: str, workers: list[str]
) -> None:
    user = pwd.getpwnam("nobody").pw_uid
    path, pid = open_folder / "s", open_folder / "pid"
    options = ["--chdir", str(open_folder), "-b", "unix:s", "--user", "nobody", "--pid", "pid"]
    options += ["--umask", "077", "--concurrency", concurrency, *workers]
    with serving("who:Who", *options) as (process, _):
        assert ask(path) == repr(((user,) * 3, str(open_folder), "0" * 16))
        assert (path.stat().st_uid, pid.stat().st_uid) == (user, user)
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        assert pid.read_text() == f"{process.pid}\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT) == 0
    assert pid.read_text() == ""  # the folder is of root


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("workers", [[], ["--workers", "1"]], ids=["alone", "workers"])
def test_another_user_serves_what_the_handler_needs(open_folder: Path, workers: list[str]) -> None:
    """The servers are those of the handler, which is loaded after they were bound."""
    path, user = open_folder / "s", pwd.getpwnam("nobody").pw_uid
    options = ["--chdir", str(open_folder), "--user", "nobody", "--executor", "threads:1", *workers]
    with serving("who:Lines", *options, "-b", "unix:s"):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(LIMIT)
            client.connect(str(path))
            client.sendall(b"line\n")
            assert client.recv(100) == b"%d line\n" % user
    options = ["--chdir", str(open_folder), "--user", "nobody", *workers]
    with serving("who:Session", *options, "-b", "udp://127.0.0.1:0") as (_, output):
        with socket.socket(type=socket.SOCK_DGRAM) as client:
            client.settimeout(LIMIT)
            client.connect(("127.0.0.1", port_of(output[0])))
            for number in range(2):
                client.send(b"a")
                assert client.recv(100) == b"%d a" % number


def test_the_pid_file_is_removed(open_folder: Path) -> None:
    pid = open_folder / "pid"
    with serving(UPPER, "-b", "tcp://127.0.0.1:0", "--pid", str(pid)) as (process, output):
        assert port_of(output[0])
        assert pid.read_text() == f"{process.pid}\n"
        again = everserve("run", UPPER, "-b", "tcp://127.0.0.1:0", "--pid", str(pid))
        assert again.returncode == 2
        assert f"process {process.pid} has it, and is running" in again.stderr
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT) == 0
    assert not pid.exists()


def test_a_pid_file_that_cannot_be_written(open_folder: Path) -> None:
    done = everserve("run", UPPER, "-b", "tcp://127.0.0.1:0", "--pid", "/no/such/folder/pid")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "--pid /no/such/folder/pid: No such file or directory" in done.stderr
