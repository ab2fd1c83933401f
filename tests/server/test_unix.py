"""``server.unix``: the servers on Unix sockets, and their files."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from tests.clients import LIMIT, ask, connect, serving
from tests.scenes import Echo, EventRecorder

from everserve.admission.peer import Peer
from everserve.errors import OptionError
from everserve.events import Failed
from everserve.handlers.datagram import DatagramRequestHandler
from everserve.server.group import ServerGroup
from everserve.server.udp import UDPServer
from everserve.server.unix import UnixDatagramServer, UnixStreamServer
from everserve.serving import make_server
from everserve.sockets.listening import remove_left_files

linux = pytest.mark.skipif(sys.platform != "linux", reason="abstract names are Linux's")


class EchoDatagram(DatagramRequestHandler):
    def handle(self) -> None:
        self.wfile.write(self.rfile.read())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "socket"


def test_the_family() -> None:
    assert UnixStreamServer.address_family == UnixDatagramServer.address_family == socket.AF_UNIX
    assert issubclass(UnixDatagramServer, UDPServer)


@pytest.mark.parametrize("as_type", [str, lambda path: os.fsencode(str(path))])
def test_streams(path: Path, as_type: Any) -> None:
    with serving(UnixStreamServer(as_type(path), Echo)) as address:
        assert address == str(path)
        assert ask(address) == b"ping"
    path.unlink()  # a program may, after server_close(), as it always had to


def test_datagrams(path: Path) -> None:
    with serving(UnixDatagramServer(str(path), EchoDatagram)) as address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
            client.settimeout(LIMIT)
            client.bind(f"{path}.client")
            client.sendto(b"ping", address)
            assert client.recv(100) == b"ping"
    path.unlink()


@pytest.mark.parametrize("removed", [False, True], ids=["closed", "removed"])
def test_a_peer_that_closes_before_its_reply_is_no_error(
    path: Path, removed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    name = f"{path}.client"

    class Late(EchoDatagram):
        def handle(self) -> None:
            client.close()
            if removed:
                os.unlink(name)
            super().handle()

    caplog.set_level("DEBUG", logger="everserve")
    server, recorder = UnixDatagramServer(str(path), Late), EventRecorder()
    server.subscribe(recorder)
    with serving(server) as address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
            client.bind(name)
            client.sendto(b"ping", address)
            (failed,) = recorder.wait_for(Failed)
            server._everserve.life.notifier.wait_until(lambda: not server.connections)
    assert failed.peer_gone
    (record,) = caplog.records
    assert (record.levelname, record.exc_info) == ("DEBUG", None)


@linux
def test_an_abstract_name() -> None:
    name = f"\0everserve-tests-{os.getpid()}"
    with serving(UnixStreamServer(name, Echo)) as address:
        assert address == name.encode()
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(LIMIT)
            client.connect(name)
            client.sendall(b"ping")
            assert client.recv(100) == b"ping"


@linux
def test_an_abstract_name_in_use_is_named() -> None:
    name = f"\0everserve-tests-{os.getpid()}"
    with UnixStreamServer(name, Echo):
        with pytest.raises(OSError) as raised:
            UnixStreamServer(name, Echo)
    assert raised.value.filename == name


@linux
def test_the_system_may_choose_the_name() -> None:
    with UnixStreamServer("", Echo) as server:
        assert server.server_address.startswith(b"\0")


def test_the_mode(path: Path) -> None:
    class Private(UnixStreamServer):
        socket_mode = 0o600

    with Private(str(path), Echo):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@linux
@pytest.mark.parametrize(
    "name", [f"\0everserve-mode-{os.getpid()}", b"\0everserve", ""], ids=["text", "bytes", "none"]
)
@pytest.mark.parametrize("kind", [UnixStreamServer, UnixDatagramServer])
def test_an_abstract_name_has_no_mode(kind: Any, name: Any) -> None:
    class Private(kind):  # type: ignore[misc]
        socket_mode = 0o600

    with pytest.raises(OptionError, match="socket_mode = 0o600: an abstract name has no file"):
        Private(name, Echo)


def test_reusing_the_port_has_no_effect(path: Path) -> None:
    class Reusing(UnixStreamServer):
        allow_reuse_port = True
        allow_reuse_address = True

    with Reusing(str(path), Echo) as server:
        assert server.server_address == str(path)


def test_the_nagle_algorithm_has_no_effect(path: Path) -> None:
    class Prompt(UnixStreamServer):
        disable_nagle_algorithm = True

    with serving(Prompt(str(path), Echo)) as address:
        assert ask(address) == b"ping"


def test_a_server_that_could_not_bind_removes_nothing(path: Path) -> None:
    path.write_text("data")
    with pytest.raises(OSError):
        UnixStreamServer(str(path), Echo)
    assert path.read_text() == "data"


def test_a_successor_keeps_its_file(path: Path) -> None:
    first = UnixStreamServer(str(path), Echo)
    path.unlink()
    with serving(UnixStreamServer(str(path), Echo)) as address:
        first.server_close()
        assert ask(address) == b"ping"


KINDS: list[Any] = [UnixStreamServer, UnixDatagramServer]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["with", "stop", "group"])
def test_its_file_goes_at_the_end(path: Path, kind: Any, how: str) -> None:
    server = kind(str(path), Echo)
    if how == "with":
        with server:
            path.chmod(0o600)
    elif how == "stop":
        server.stop()
    else:
        with ServerGroup([server]):
            assert path.is_socket()
    assert not path.exists()


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_the_program_leaves_goes_with_the_process(path: Path, kind: Any) -> None:
    kind(str(path), Echo).server_close()
    assert path.is_socket()
    with kind(str(path), Echo) as again:  # it is in nobody's way
        remove_left_files()
        assert path.is_socket()
        again.server_close()
    remove_left_files()
    assert not path.exists()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("how", ["close", "stop", "with"])
def test_a_file_that_a_forked_child_serves_stays(path: Path, how: str) -> None:
    server = UnixStreamServer(str(path), Echo)
    told, stop = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(stop)
            os.read(told, 1)
        finally:
            os._exit(0)
    if how == "with":
        server.__exit__(None, None, None)
    else:
        server.server_close() if how == "close" else server.stop()
    remove_left_files()
    connect(str(path)).close()
    os.close(stop)
    os.waitpid(pid, 0)
    os.close(told)
    path.unlink()


# -- who sends -----------------------------------------------------------------------------------


def send_from_child(path: Path) -> int:
    """Have another process send a datagram; returns its id."""
    program = (
        "import os, socket, sys\n"
        "sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        "sock.sendto(b'hello', sys.argv[1]); print(os.getpid())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.parametrize("concurrency", ["serial", "threads", "pool", "fibers"])
@pytest.mark.parametrize("inherited", [False, True])
def test_a_datagram_brings_the_process_that_sent_it(
    path: Path, concurrency: Any, inherited: bool
) -> None:
    senders: SimpleQueue[Peer] = SimpleQueue()

    class Note(DatagramRequestHandler):
        def handle(self) -> None:
            senders.put(self.peer)

    address = f"unixgram:{path}"
    if inherited:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        sock.bind(str(path))
        address = f"fd://{sock.detach()}"
    with make_server(Note, address, concurrency=concurrency).running():
        sender = send_from_child(path)
        peer = senders.get(timeout=LIMIT)
    assert peer.credentials == (sender, os.getuid(), os.getgid())
    assert peer.transport == "unixgram"


def test_descriptors_that_a_peer_passes_are_not_taken(path: Path) -> None:
    came = threading.Event()

    class Note(DatagramRequestHandler):
        def handle(self) -> None:
            came.set()

    with make_server(Note, f"unixgram:{path}", concurrency="serial").running():
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
            client.connect(str(path))
            socket.send_fds(client, [b"take this"], [writer])
        os.close(writer)
        assert came.wait(LIMIT)
        assert os.read(reader, 1) == b""  # no one else has it
        os.close(reader)
