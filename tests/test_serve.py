"""``make_server`` and ``serve``: one word and an address, and it runs."""

import os
import socket
import stat
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import everserve
from everserve.combos import CONCURRENCY, server_class
from everserve.errors import AddressError, OptionError


class Upper(everserve.StreamRequestHandler[Any, Any]):
    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line.upper())


class UpperDatagram(everserve.DatagramRequestHandler[Any, Any]):
    def handle(self) -> None:
        self.wfile.write(self.packet.upper())


def ask(address: Any, family: int = socket.AF_INET) -> bytes:
    with socket.socket(family) as client:
        client.connect(address)
        client.sendall(b"hello\n")
        return client.makefile("rb").readline()


@pytest.mark.parametrize("concurrency", [name for name in CONCURRENCY if name != "forks"])
def test_each_strategy_serves(concurrency: str) -> None:
    server = everserve.make_server(Upper, "tcp://127.0.0.1:0", concurrency=concurrency)
    with server.running() as address:
        assert ask(address) == b"HELLO\n"


def test_modern_defaults() -> None:
    with everserve.make_server(Upper, "tcp://127.0.0.1:0") as server:
        assert isinstance(server, everserve.FiberTCPServer)
        assert server.socket.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        assert server.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_accepted_connections_inherit_the_option() -> None:
    seen: list[int] = []

    class Look(everserve.BaseRequestHandler[Any, Any]):
        def handle(self) -> None:
            seen.append(self.request.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    with everserve.make_server(Look, "tcp://127.0.0.1:0").running() as address:
        with socket.create_connection(address) as client:
            assert client.recv(1) == b""
    assert seen == [1]


def test_settings_win_over_the_defaults() -> None:
    server = everserve.make_server(
        Upper,
        "tcp://127.0.0.1:0",
        concurrency="pool",
        disable_nagle_algorithm=False,
        max_workers=3,
    )
    with server:
        assert not server.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert server.max_workers == 3  # type: ignore[attr-defined]


def test_ipv6() -> None:
    with everserve.make_server(Upper, "tcp://[::1]:0").running() as address:
        assert ask(address[:2], socket.AF_INET6) == b"HELLO\n"


def test_all_interfaces_takes_both_families() -> None:
    with everserve.make_server(Upper, "tcp://*:0").running() as address:
        assert ask(("127.0.0.1", address[1])) == b"HELLO\n"
        assert ask(("::1", address[1]), socket.AF_INET6) == b"HELLO\n"


def test_datagrams() -> None:
    server = everserve.make_server(UpperDatagram, "udp://127.0.0.1:0", concurrency="serial")
    with server.running() as address, socket.socket(type=socket.SOCK_DGRAM) as client:
        client.sendto(b"hello", address)
        assert client.recv(100) == b"HELLO"


def test_a_unix_socket_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    server = everserve.make_server(Upper, f"unix:{path}", socket_mode="0o600")
    with server.running() as address:
        assert ask(address, socket.AF_UNIX) == b"HELLO\n"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.exists()


def test_an_inherited_listener() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    server = everserve.make_server(Upper, f"fd://{listener.detach()}", request_queue_size=2)
    with server.running() as bound:
        assert bound == address
        assert ask(address) == b"HELLO\n"


def test_an_inherited_socket_that_does_not_listen_yet() -> None:
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    with everserve.make_server(Upper, f"fd://{bound.detach()}").running() as address:
        assert ask(address) == b"HELLO\n"


def test_an_inherited_datagram_socket() -> None:
    bound = socket.socket(type=socket.SOCK_DGRAM)
    bound.bind(("127.0.0.1", 0))
    server = everserve.make_server(UpperDatagram, f"fd://{bound.detach()}", concurrency="serial")
    with server.running() as address, socket.socket(type=socket.SOCK_DGRAM) as client:
        client.sendto(b"hello", address)
        assert client.recv(100) == b"HELLO"


def test_a_connection_is_no_listener() -> None:
    left, right = socket.socketpair()
    with left, right:
        with pytest.raises(OSError, match="not a listening socket") as caught:
            everserve.make_server(Upper, f"fd://{left.fileno()}")
        assert caught.value.filename == f"fd://{left.fileno()}"
        left.sendall(b"still mine")


def test_a_file_is_no_socket(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        with pytest.raises(OSError, match="fd://"):
            everserve.make_server(Upper, f"fd://{file.fileno()}")


def test_a_used_port_is_named() -> None:
    with everserve.make_server(Upper, "tcp://127.0.0.1:0") as first:
        host, port = first.server_address
        with pytest.raises(OSError, match=f"in use: '{host}:{port}'"):
            everserve.make_server(Upper, f"tcp://{host}:{port}")


def test_unknown_words() -> None:
    with pytest.raises(
        OptionError, match="concurrency = 'magic': there are fibers, serial, threads"
    ):
        everserve.make_server(Upper, "tcp://127.0.0.1:0", concurrency="magic")
    with pytest.raises(OptionError, match="no option 'colour'"):
        everserve.make_server(Upper, "tcp://127.0.0.1:0", colour=1)
    with pytest.raises(AddressError, match="no address to serve on"):
        everserve.serve(Upper)


def test_a_transport_that_the_system_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(everserve.combos, "ThreadingUnixStreamServer")
    with pytest.raises(AddressError, match=f"unix: is not there on this system \\({sys.platform}"):
        server_class("threads", "unix")


def test_serve_runs_on_several_addresses_until_each_has_stopped(tmp_path: Path) -> None:
    class Stop(everserve.StreamRequestHandler[Any, Any]):
        def handle(self) -> None:
            self.wfile.write(self.rfile.readline().upper())
            threading.Thread(target=self.server.stop).start()

    paths = [str(tmp_path / "first"), str(tmp_path / "second")]
    answers: list[bytes] = []

    def clients() -> None:
        for path in paths:
            with socket.socket(socket.AF_UNIX) as client:
                while client.connect_ex(path):
                    pass  # not bound yet
                client.sendall(b"go\n")
                answers.append(client.makefile("rb").readline())

    thread = threading.Thread(target=clients)
    thread.start()
    report = everserve.serve(Stop, *(f"unix:{path}" for path in paths))
    thread.join()
    assert answers == [b"GO\n", b"GO\n"]
    assert report.cut == ()
    assert os.listdir(tmp_path) == []


def test_nothing_stays_bound_when_a_later_address_fails() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(OSError, match="assign"):
        everserve.serve(Upper, f"tcp://127.0.0.1:{port}", "tcp://192.0.2.1:1")
    with socket.create_server(("127.0.0.1", port)):
        pass
