"""Limits, access and PROXY headers beyond plain IPv4 connections: datagrams, IPv6, dual stack."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from tests.clients import LIMIT, ask, connect, read_all
from tests.scenes import EventRecorder
from tests.threads import Exhausted

import everserve
from everserve.admission.control import OverloadPolicy
from everserve.events import Accepted, DeadlineMissed, Finished, Opened, Refused, Shed
from everserve.serving import make_server
from everserve.sockets.listening import has_ipv6
from everserve.wire.proxy import ProxyHeader, encode

needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
FORKS_AMONG_THREADS = "ignore:This process .* is multi-threaded:DeprecationWarning"


class Upper(everserve.StreamRequestHandler[Any, Any]):
    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line.upper())


class UpperDatagram(everserve.DatagramRequestHandler[Any, Any]):
    def handle(self) -> None:
        peer = self.peer
        extra = f" {self.client_address[0]} {peer.proxy_address is not None}".encode()
        self.wfile.write(self.packet.upper() + extra)


@pytest.fixture(
    params=[
        "serial",
        "threads",
        "pool",
        pytest.param("forks", marks=pytest.mark.filterwarnings(FORKS_AMONG_THREADS)),
        "fibers",
    ]
)
def concurrency(request: pytest.FixtureRequest) -> str:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def recorder() -> EventRecorder:
    return EventRecorder()


@pytest.fixture
def serve(recorder: EventRecorder, concurrency: str) -> Iterator[Any]:
    blocks = []

    def make(handler: Any, address: str, **settings: Any) -> Any:
        server = make_server(handler, address, concurrency=concurrency, **settings)
        server.subscribe(recorder)
        block = server.running(grace=LIMIT)
        block.__enter__()
        blocks.append(block)
        return server

    yield make
    for block in blocks:
        block.__exit__(None, None, None)


@pytest.fixture
def client() -> Iterator[socket.socket]:
    """A client of datagrams."""
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        client.settimeout(LIMIT)
        client.bind(("127.0.0.1", 0))
        yield client


def test_datagrams_that_access_denies_are_dropped(
    serve: Any, recorder: EventRecorder, client: socket.socket
) -> None:
    server = serve(UpperDatagram, "udp://127.0.0.1:0", access="deny 127.0.0.0/8")
    for _ in range(5):
        client.sendto(b"no", server.server_address)
    recorder.wait_for(Refused, 5)
    server.access = None
    client.sendto(b"yes", server.server_address)
    assert client.recv(100) == b"YES 127.0.0.1 False"  # and nothing came before it
    assert {event.reason for event in recorder.of(Refused)} == {"access"}
    assert len(recorder.wait_for(Finished)) == 1


@pytest.mark.parametrize("policy", ["refuse", "reset", "shed-idle"])
def test_datagrams_above_the_rate_are_dropped(
    serve: Any, recorder: EventRecorder, client: socket.socket, policy: str
) -> None:
    server = serve(
        UpperDatagram, "udp://127.0.0.1:0", accept_rate=0.001, accept_burst=2, overload=policy
    )
    for number in range(6):
        client.sendto(b"%d" % number, server.server_address)
    assert {client.recv(100)[:1] for _ in range(2)} == {b"0", b"1"}
    recorder.wait_for(Refused, 4)
    assert server._everserve.control.refusals == {"accept_rate": 4}
    recorder.wait_for(Finished, 2)


def test_each_datagram_has_a_header_and_the_reply_is_sent_to_the_proxy(
    serve: Any, recorder: EventRecorder, client: socket.socket
) -> None:
    server = serve(
        UpperDatagram, "udp://127.0.0.1:0", proxy_protocol=True, trusted_proxies="127.0.0.0/8"
    )
    for host in ("192.0.2.7", "192.0.2.8"):
        header = ProxyHeader.build((host, 4711), ("192.0.2.1", 53), datagram=True)
        client.sendto(encode(header) + b"data", server.server_address)
        assert client.recv(100) == f"DATA {host} True".encode()
    local = encode(ProxyHeader.build(local=True))
    client.sendto(local + b"check", server.server_address)
    assert client.recv(100) == b"CHECK 127.0.0.1 True"
    recorder.wait_for(Finished, 3)


@pytest.mark.parametrize("data", [b"no header", b"", b"\r\n\r\n\0\r\nQUIT\n\x21\x12\0\x0c"])
def test_a_datagram_without_a_good_header_is_dropped(
    serve: Any, recorder: EventRecorder, client: socket.socket, data: bytes
) -> None:
    server = serve(
        UpperDatagram, "udp://127.0.0.1:0", proxy_protocol=True, trusted_proxies="127.0.0.0/8"
    )
    client.sendto(data, server.server_address)
    (refused,) = recorder.wait_for(Refused)
    assert refused.reason == "proxy"
    assert not recorder.of(Opened)


def test_a_datagram_of_an_untrusted_peer_is_dropped(
    serve: Any, recorder: EventRecorder, client: socket.socket
) -> None:
    server = serve(
        UpperDatagram, "udp://127.0.0.1:0", proxy_protocol=True, trusted_proxies="10.0.0.0/8"
    )
    header = ProxyHeader.build(("192.0.2.7", 1), ("192.0.2.1", 53), datagram=True)
    client.sendto(encode(header) + b"data", server.server_address)
    assert recorder.wait_for(Refused)[0].reason == "untrusted_proxy"


@needs_ipv6
def test_connections_of_one_64(serve: Any, recorder: EventRecorder, concurrency: str) -> None:
    if concurrency == "serial":
        pytest.skip("one request at a time")
    server = serve(Upper, "tcp://[::1]:0", max_connections_per_peer=1)
    with connect(server.server_address) as first:
        first.sendall(b"line\n")
        assert first.recv(100) == b"LINE\n"
        with suppress(ConnectionResetError), connect(server.server_address) as second:
            assert second.recv(100) == b""
        first.shutdown(socket.SHUT_RDWR)  # a forked child may hold a copy of it
    recorder.wait_for(Finished)
    assert recorder.wait_for(Refused)[0].reason == "max_connections_per_peer"
    assert ask(server.server_address, b"again\n") == b"AGAIN\n"


@needs_ipv6
def test_an_ipv4_client_of_a_dual_stack_server_is_ipv4(serve: Any, recorder: EventRecorder) -> None:
    server = serve(Upper, "tcp://*:0", access="deny 127.0.0.0/8")
    port = server.server_address[1]
    with suppress(ConnectionResetError), connect(("127.0.0.1", port)) as client:
        assert client.recv(100) == b""
    assert recorder.wait_for(Refused)[0].reason == "access"
    assert ask(("::1", port), b"line\n") == b"LINE\n"
    server.access = everserve.AccessRules(allow=["::ffff:127.0.0.0/104"])
    assert ask(("127.0.0.1", port), b"line\n") == b"LINE\n"
    recorder.wait_for(Finished, 2)


@needs_ipv6
def test_a_trusted_proxy_of_a_dual_stack_server(serve: Any, recorder: EventRecorder) -> None:
    server = serve(Upper, "tcp://*:0", proxy_protocol=True, trusted_proxies="127.0.0.1")
    address = ("127.0.0.1", server.server_address[1])
    assert ask(address, b"PROXY UNKNOWN\r\nline\n") == b"LINE\n"
    recorder.wait_for(Finished)


def test_limits_change_on_a_running_server(
    serve: Any, recorder: EventRecorder, concurrency: str
) -> None:
    server = serve(Upper, "tcp://127.0.0.1:0", overload="refuse")
    assert ask(server.server_address, b"line\n") == b"LINE\n"
    server.accept_rate, server.accept_burst, server.overload_message = 0.001, 1, b"later\n"
    assert ask(server.server_address, b"line\n") == b"LINE\n"
    assert ask(server.server_address, b"") == b"later\n"
    server.accept_rate = None
    server.request_timeout = 0.05
    with connect(server.server_address) as client:
        assert client.recv(100) == b""
    assert recorder.wait_for(DeadlineMissed)[0].deadline == "request_timeout"
    recorder.wait_for(Finished, 3)


LIMITS = {
    "threads": ["max_connections"],
    "pool": ["max_connections", "max_workers"],
    "forks": ["max_connections", "max_children"],
    "fibers": ["max_connections"],
}


class Waits(everserve.StreamRequestHandler[Any, Any]):
    def handle(self) -> None:
        self.wfile.write(b"in\n")
        self.wfile.flush()
        self.rfile.readline()


@contextmanager
def coming(server: Any) -> Iterator[socket.socket]:
    """A client. A shutdown ends it for its handler even if another forked child has a copy."""
    with connect(server.server_address) as client:
        yield client
        client.shutdown(socket.SHUT_RDWR)


def set_limits(server: Any, concurrency: str, limit: int) -> None:
    for name in LIMITS[concurrency]:
        setattr(server, name, limit)


def test_a_limit_that_is_raised_admits_waiting_connections(serve: Any, concurrency: str) -> None:
    if concurrency == "serial":
        pytest.skip("one request at a time")
    server = serve(Waits, "tcp://127.0.0.1:0", **dict.fromkeys(LIMITS[concurrency], 1))
    with coming(server) as first, coming(server) as second:
        assert first.recv(100) == b"in\n"
        second.settimeout(0.02)
        with pytest.raises(TimeoutError):
            second.recv(100)
        second.settimeout(LIMIT)
        set_limits(server, concurrency, 2)
        assert second.recv(100) == b"in\n"


def test_a_limit_that_is_raised_and_lowered_counts_from_the_next(
    serve: Any, recorder: EventRecorder, concurrency: str
) -> None:
    if concurrency == "serial":
        pytest.skip("one request at a time")
    limits = dict.fromkeys(LIMITS[concurrency], 1)
    server = serve(Waits, "tcp://127.0.0.1:0", overload="refuse", **limits)
    with coming(server) as first:
        assert first.recv(100) == b"in\n"
        assert ask(server.server_address, b"") == b""
        set_limits(server, concurrency, 2)
        with coming(server) as second:
            assert second.recv(100) == b"in\n"
            assert ask(server.server_address, b"") == b""
            set_limits(server, concurrency, 1)
            first.sendall(b"end\n")
            assert first.recv(100) == b""
            recorder.wait_for(Finished)
            assert ask(server.server_address, b"") == b""
    assert {event.reason for event in recorder.of(Refused)} == {"max_connections"}


def test_a_custom_policy(recorder: EventRecorder) -> None:
    """On the class, on an instance, and as an option of ``serve``: it is called with the server."""
    asked: list[Any] = []

    def decide(server: Any, request: Any, client_address: Any, reason: str) -> bool:
        asked.append((server, reason))
        return False

    class Strict(everserve.ThreadingTCPServer):
        accept_rate = 0.001
        accept_burst = 1
        overload = OverloadPolicy(decide)

    servers = [
        Strict(("127.0.0.1", 0), everserve.BaseRequestHandler),
        make_server(
            everserve.BaseRequestHandler,
            "tcp://127.0.0.1:0",
            accept_rate=0.001,
            accept_burst=1,
            overload=decide,
        ),
    ]
    for server in servers:
        with server.running():
            for _ in range(3):
                assert ask(server.server_address, b"") == b""
            server.overload = OverloadPolicy(decide)
            assert ask(server.server_address, b"") == b""
    assert asked == [(server, "accept_rate") for server in servers for _ in range(3)]


def test_a_method_of_that_name_is_the_programs_own() -> None:
    class Own(everserve.ThreadingTCPServer):
        accept_rate = 0.001
        accept_burst = 2

        def overload(self) -> None:  # type: ignore[override, assignment]
            pytest.fail("called")

    with Own(("127.0.0.1", 0), Upper).running() as address:
        assert ask(address, b"line\n") == b"LINE\n"


class Deaf(everserve.BaseRequestHandler[Any, Any]):
    """Does not use its connection: a cut does not end it."""

    def handle(self) -> None:
        self.server.opened.wait(LIMIT)


def test_handlers_that_do_not_end_are_not_shed_without_end(recorder: EventRecorder) -> None:
    server = make_server(
        Deaf, "tcp://127.0.0.1:0", concurrency="threads", max_connections=3, overload="shed-idle"
    )
    server.opened = threading.Event()  # type: ignore[attr-defined]
    server.subscribe(recorder)
    with server.running(grace=LIMIT) as address:
        clients = [connect(address) for _ in range(20)]
        recorder.wait_for(Accepted, 20)
        recorder.wait_for(Refused)
        assert len(server.connections) <= 2 * 3 + 3  # one may still be in refusal
        shed = len(recorder.of(Shed))
        server.opened.set()  # type: ignore[attr-defined]
        recorder.wait_for(Finished, 3 + shed)
        for client in clients:
            client.close()
        with connect(address):  # the shed ones have ended, so there are connections to shed again
            recorder.wait_for(Accepted, 21)
    assert server.refusals["max_connections"] == 20 - 3 - shed
    assert not server._everserve.connections._shed


@pytest.mark.parametrize(
    "option",
    ["access", "max_connections_per_peer", "accept_rate", "max_handshakes", "overload", "tls"],
)
@pytest.mark.parametrize("value", ["nonsense", object(), 1j])
def test_a_value_of_another_type_is_not_an_option(
    serve: Any, recorder: EventRecorder, option: str, value: Any
) -> None:
    server = serve(Upper, "tcp://127.0.0.1:0")
    setattr(server, option, value)
    assert ask(server.server_address, b"line\n") == b"LINE\n"
    assert getattr(server, option) is value
    recorder.wait_for(Finished)


def test_above_the_rate_the_next_waits_until_it_is_raised(recorder: EventRecorder) -> None:
    server = make_server(Upper, "tcp://127.0.0.1:0", concurrency="threads", overload="wait")
    server.subscribe(recorder)
    server.accept_rate, server.accept_burst = 0.001, 1
    with server.running() as address:
        assert ask(address, b"now\n") == b"NOW\n"
        with connect(address) as waiting:
            waiting.sendall(b"later\n")
            waiting.shutdown(socket.SHUT_WR)
            assert len(recorder.of(Accepted)) == 1
            server.accept_rate = None
            assert read_all(waiting) == b"LATER\n"


def test_a_stop_does_not_wait_for_the_rate_where_no_one_waits(serve: Any) -> None:
    server = serve(Upper, "tcp://127.0.0.1:0", accept_rate=0.001, accept_burst=1, overload="wait")
    assert ask(server.server_address, b"line\n") == b"LINE\n"
    assert server.stop(3600).complete


def test_a_policy_is_called_for_each_limit(
    serve: Any, recorder: EventRecorder, concurrency: str
) -> None:
    """A policy that waives one limit does not waive the others."""
    if concurrency == "serial":
        pytest.skip("one request at a time")
    asked: list[str] = []

    def policy(_server: Any, _request: Any, _address: Any, reason: str) -> bool:
        asked.append(reason)
        return reason == "max_connections"

    server = serve(
        Upper,
        "tcp://127.0.0.1:0",
        accept_rate=0.001,
        accept_burst=1,
        max_connections=1,
        overload=policy,
    )
    with connect(server.server_address) as first:
        recorder.wait_for(Opened)
        assert ask(server.server_address, b"") == b""
        recorder.wait_for(Refused)
        first.shutdown(socket.SHUT_WR)  # a forked child has a copy of this very socket
        assert read_all(first) == b""
    assert asked == ["max_connections", "accept_rate"]


def test_a_peer_above_its_limit_costs_the_others_no_rate(serve: Any, concurrency: str) -> None:
    """Else one address could shut all others out."""
    if concurrency == "serial":
        pytest.skip("one request at a time")
    server = serve(
        Upper,
        "tcp://127.0.0.1:0",
        accept_rate=0.001,
        accept_burst=2,
        max_connections_per_peer=1,
        overload="reset",
    )
    with connect_from("127.0.0.66", server.server_address) as held:
        held.sendall(b"held\n")
        assert held.recv(5) == b"HELD\n"
        for _ in range(5):
            with suppress(OSError), connect_from("127.0.0.66", server.server_address) as refused:
                refused.recv(1)
        with connect_from("127.0.0.7", server.server_address) as other:
            other.sendall(b"other\n")
            assert other.recv(6) == b"OTHER\n"
            other.shutdown(socket.SHUT_WR)
            assert read_all(other) == b""
        held.shutdown(socket.SHUT_WR)  # a forked child has a copy of this very socket
        assert read_all(held) == b""


def connect_from(host: str, address: Any) -> socket.socket:
    return socket.create_connection(address, LIMIT, (host, 0))


BEHIND: dict[str, Any] = {"proxy_protocol": True, "trusted_proxies": "127.0.0.1"}


def header_of(host: str) -> bytes:
    return f"PROXY TCP4 {host} 192.0.2.1 4711 80\r\n".encode()


def is_refused(address: Any, data: bytes) -> bool:
    with suppress(ConnectionError), connect(address) as client:
        client.sendall(data)
        return client.recv(100) == b""
    return True


@pytest.mark.parametrize("overload", ["wait", "refuse", "reset"])
def test_access_is_asked_with_the_address_behind_the_proxy(
    serve: Any, recorder: EventRecorder, overload: str
) -> None:
    server = serve(
        Upper, "tcp://127.0.0.1:0", access="allow 198.51.100.0/24", overload=overload, **BEHIND
    )
    assert ask(server.server_address, header_of("198.51.100.7") + b"in\n") == b"IN\n"
    assert is_refused(server.server_address, header_of("203.0.113.7"))
    assert is_refused(server.server_address, b"PROXY UNKNOWN\r\n")  # the proxy's own address
    local = encode(ProxyHeader.build(local=True))
    assert ask(server.server_address, local + b"health\n") == b"HEALTH\n"
    assert [event.reason for event in recorder.wait_for(Refused, 2)] == ["access", "access"]


def test_a_client_behind_a_proxy_has_a_limit_and_the_proxy_has_none(
    serve: Any, recorder: EventRecorder, concurrency: str
) -> None:
    if concurrency == "serial":
        pytest.skip("one request at a time")
    server = serve(
        Upper,
        "tcp://127.0.0.1:0",
        max_connections_per_peer=1,
        accept_rate=0.001,
        accept_burst=3,
        overload="refuse",
        overload_message=b"full\n",
        **BEHIND,
    )
    clients = []
    for number in range(2):
        client = connect(server.server_address)
        clients.append(client)
        client.sendall(header_of(f"198.51.100.{number}") + b"in\n")
        assert client.recv(3) == b"IN\n"
    recorder.wait_for(Opened, 2)
    for _ in range(1 if concurrency == "forks" else 3):  # a child has its own bucket of tokens
        with connect(server.server_address) as above:
            above.sendall(header_of("198.51.100.1"))
            assert above.recv(100) == b"full\n"
    recorder.wait_for(Refused)
    assert set(server.refusals) == {"max_connections_per_peer"}
    for client in clients:
        client.shutdown(socket.SHUT_RDWR)  # a forked child may have a copy
        client.close()
    recorder.wait_for(Finished, 2)


def test_an_untrusted_proxy_is_refused_on_the_accept_loop(
    serve: Any, recorder: EventRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(Upper, "tcp://127.0.0.1:0", proxy_protocol=True, trusted_proxies="192.0.2.0/24")
    monkeypatch.setattr(
        server._everserve.strategy, "start", lambda *_: pytest.fail("it was started")
    )
    assert is_refused(server.server_address, header_of("192.0.2.7"))
    assert recorder.wait_for(Refused)[0].reason == "untrusted_proxy"


def test_a_peer_above_its_rate_is_refused_and_the_others_are_served(
    serve: Any, recorder: EventRecorder
) -> None:
    server = serve(
        Upper, "tcp://127.0.0.1:0", accept_rate_per_peer=0.001, accept_rate=0.001, accept_burst=2
    )
    with connect_from("127.0.0.66", server.server_address) as first:
        first.sendall(b"line\n")
        first.shutdown(socket.SHUT_WR)
        assert read_all(first) == b"LINE\n"
    for _ in range(3):
        with suppress(OSError), connect_from("127.0.0.66", server.server_address) as above:
            assert above.recv(1) == b""
    recorder.wait_for(Refused, 3)
    assert server.refusals == {"accept_rate_per_peer": 3}
    with connect_from("127.0.0.7", server.server_address) as other:
        other.sendall(b"line\n")
        other.shutdown(socket.SHUT_WR)
        assert read_all(other) == b"LINE\n"


def test_the_rate_of_a_client_behind_a_proxy(serve: Any, recorder: EventRecorder) -> None:
    server = serve(Upper, "tcp://127.0.0.1:0", accept_rate_per_peer=0.001, **BEHIND)
    for host in ("198.51.100.1", "198.51.100.2"):
        assert ask(server.server_address, header_of(host) + b"in\n") == b"IN\n"
        assert is_refused(server.server_address, header_of(host))
    recorder.wait_for(Refused, 2)
    assert server.refusals == {"accept_rate_per_peer": 2}


@pytest.mark.parametrize("other", [{}, {"request_timeout": LIMIT}])
def test_deadlines_whose_thread_could_not_be_started_are_kept_later(
    serve: Any, recorder: EventRecorder, exhausted: Exhausted, concurrency: str, other: Any
) -> None:
    """Those of connections that were there before, too: checked together, or each by itself."""
    if concurrency in ("serial", "forks"):
        pytest.skip("needs a second request in the same process")
    exhausted.refused = {"everserve-deadlines"}
    server = serve(Upper, "tcp://127.0.0.1:0", idle_timeout=0.05, **other)
    with connect(server.server_address) as first:
        recorder.wait_for(Opened)
        exhausted.end()
        with connect(server.server_address) as second:
            assert second.recv(1) == b""
        assert first.recv(1) == b""
    assert exhausted.attempts
    recorder.wait_for(DeadlineMissed, 2)
