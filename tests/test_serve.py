"""``make_server`` and ``serve``: one word and an address, and it runs."""

import os
import socket
import stat
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.certificates import Certificates

import everserve
from everserve.combos import CONCURRENCY, server_class
from everserve.errors import AddressError, OptionError
from everserve.serve import bind


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


# --- fit for the internet ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


def ask_securely(address: Any, certificates: Certificates) -> bytes:
    context = certificates.client_context()
    with socket.create_connection(address[:2]) as raw:
        with context.wrap_socket(raw, server_hostname="localhost") as client:
            client.sendall(b"hello\n")
            return client.makefile("rb").readline()


@pytest.mark.parametrize("concurrency", [name for name in CONCURRENCY if name != "forks"])
def test_tls(concurrency: str, certificates: Certificates) -> None:
    tls = everserve.TLS(*certificates.server)
    server = everserve.make_server(Upper, "tls://127.0.0.1:0", concurrency=concurrency, tls=tls)
    with server.running() as address:
        assert ask_securely(address, certificates) == b"HELLO\n"


def test_tls_needs_a_certificate_and_a_stream(certificates: Certificates) -> None:
    tls = everserve.TLS(*certificates.server)
    with pytest.raises(OptionError, match="needs a certificate"):
        everserve.make_server(Upper, "tls://127.0.0.1:0")
    with pytest.raises(OptionError, match="tls has no meaning for datagrams"):
        everserve.make_server(UpperDatagram, "udp://127.0.0.1:0", tls=tls)
    with pytest.raises(OptionError, match=r"tls = 'cert.pem': wants an everserve\.TLS"):
        everserve.make_server(Upper, "tls://127.0.0.1:0", tls="cert.pem")


def test_tls_on_one_of_two_addresses(certificates: Certificates) -> None:
    tls = everserve.TLS(*certificates.server)
    first, second = bind(Upper, ["tls://127.0.0.1:0", "tcp://127.0.0.1:0"], tls=tls)
    with first.running() as secure, second.running() as plain:
        assert ask_securely(secure, certificates) == b"HELLO\n"
        assert ask(plain) == b"HELLO\n"


def test_a_proxy_must_be_trusted_by_name() -> None:
    with pytest.raises(OptionError, match="proxy_protocol needs trusted_proxies"):
        everserve.make_server(Upper, "tcp://127.0.0.1:0", proxy_protocol=True)
    server = everserve.make_server(
        Upper, "tcp://127.0.0.1:0", proxy_protocol=True, trusted_proxies=["127.0.0.1"]
    )
    with server.running() as address, socket.create_connection(address) as client:
        client.sendall(b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 80\r\nhello\n")
        assert client.recv(100) == b"HELLO\n"


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("overload", "shed-idle", "shed-idle"),
        ("overload_message", r"busy\r\n", b"busy\r\n"),
        ("overload_message", "zu voll \u00e4", "zu voll \u00e4".encode()),
        ("accept_rate", "0.5", 0.5),
        ("accept_burst", 3, 3.0),
        ("max_handshakes", "10", 10),
        ("idle_timeout", "2.5", 2.5),
        ("min_receive_rate", 100, 100.0),
        ("implicit_tls", False, False),
    ],
)
def test_settings_of_admission(name: str, text: Any, value: Any) -> None:
    with everserve.make_server(Upper, "tcp://127.0.0.1:0", **{name: text}) as server:
        assert getattr(server, name) == value


def test_access_as_a_text() -> None:
    with everserve.make_server(Upper, "tcp://127.0.0.1:0", access="deny 10.0.0.0/8") as server:
        assert server.access is not None
        assert not server.access.permits(("10.1.2.3", 1))


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("overload", "drop", "there are wait, refuse, reset, shed-idle, or a callable"),
        ("access", "10.0.0.0/8", "write 'allow 10.0.0.0/8"),
        ("trusted_proxies", "somewhere", "no network: 'somewhere'"),
        ("idle_timeout", 0, "idle_timeout = 0: wants seconds, more than 0"),
        ("accept_rate", -1, "accept_rate = -1: wants a number, more than 0"),
        ("max_handshakes", 0, "max_handshakes = 0: wants a number from 1 up"),
        ("steps", [1], "steps = \\[1\\]: wants callables"),
    ],
)
def test_settings_that_will_not_do(name: str, value: Any, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        everserve.make_server(Upper, "tcp://127.0.0.1:0", **{name: value})


@pytest.mark.parametrize(
    "name", ["idle_timeout", "write_timeout", "handshake_timeout", "proxy_timeout", "tls_reload_interval"]
)
def test_what_is_of_streams_is_not_of_datagrams(name: str) -> None:
    with pytest.raises(OptionError, match=f"{name} has no meaning for a FiberUDPServer"):
        everserve.make_server(UpperDatagram, "udp://127.0.0.1:0", **{name: 1})
    with everserve.make_server(UpperDatagram, "udp://127.0.0.1:0", request_timeout=1):
        pass
