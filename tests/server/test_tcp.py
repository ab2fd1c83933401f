"""``server.tcp``: the listener, and the connections as requests."""

from __future__ import annotations

import errno
import socket
import threading
import sys
from typing import Any

import pytest
from tests.clients import LIMIT, Background, ask, connect, read_all, serving
from tests.scenes import LOOPBACK, Echo, EventRecorder

from everserve.events import Finished
from everserve.server.tcp import TCPServer

linux = pytest.mark.skipif(sys.platform != "linux", reason="the mode of an accepted socket")


def test_made_in_steps() -> None:
    server = TCPServer(LOOPBACK, Echo, bind_and_activate=False)
    assert server.server_address == LOOPBACK
    server.allow_reuse_address = True
    server.request_queue_size = 3
    server.server_bind()
    assert server.server_address == server.socket.getsockname()
    assert server.socket.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
    server.server_activate()
    with serving(server) as address:
        assert ask(address) == b"ping"


def test_a_socket_that_cannot_be_bound_is_closed() -> None:
    made: list[socket.socket] = []

    class Noted(TCPServer):
        def server_bind(self) -> None:
            made.append(self.socket)
            super().server_bind()

    with TCPServer(LOOPBACK, Echo) as server:
        with pytest.raises(OSError) as raised:
            Noted(server.server_address, Echo)
        host, port = server.server_address
    assert (raised.value.errno, raised.value.filename) == (errno.EADDRINUSE, f"{host}:{port}")
    assert made[0].fileno() == -1


def test_a_keyboard_interrupt_in_server_bind_closes_it_too() -> None:
    made: list[TCPServer] = []

    class Interrupted(TCPServer):
        def server_activate(self) -> None:
            made.append(self)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Interrupted(LOOPBACK, Echo)
    assert made[0].fileno() == -1


# -- the family --------------------------------------------------------------------------------


def test_the_family_follows_the_address() -> None:
    with TCPServer(("::1", 0), Echo) as server:
        assert server.address_family == socket.AF_INET6
    assert TCPServer.address_family == socket.AF_INET


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_class_that_sets_the_family_keeps_it(family: int) -> None:
    class Set(TCPServer):
        address_family = family

    with Set(("", 0), Echo) as server:
        assert server.socket.family == family
    if family == socket.AF_INET:
        with pytest.raises(OSError):
            Set(("::1", 0), Echo)


def test_the_family_set_on_the_base_itself_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TCPServer, "address_family", socket.AF_INET6)
    with TCPServer(("", 0), Echo) as server:
        assert server.socket.family == socket.AF_INET6


def test_dual_stack_takes_both() -> None:
    class Both(TCPServer):
        dual_stack = True

    with serving(Both(("", 0), Echo)) as address:
        for host in ("127.0.0.1", "::1"):
            assert ask((host, address[1])) == b"ping"


def test_without_dual_stack_ipv6_is_alone() -> None:
    with serving(TCPServer(("::", 0), Echo)) as address:
        assert ask(("::1", address[1])) == b"ping"
        with pytest.raises(ConnectionRefusedError):
            connect(("127.0.0.1", address[1]))


# -- the listener ------------------------------------------------------------------------------


def test_its_socket_may_be_replaced() -> None:
    server = TCPServer(LOOPBACK, Echo, bind_and_activate=False)
    server.socket.close()
    server.socket = socket.create_server(("127.0.0.1", 0))
    server.server_address = server.socket.getsockname()
    with serving(server) as address:
        assert ask(address) == b"ping"
    assert server.socket.fileno() == -1


@linux
def test_while_it_serves_accept_cannot_block() -> None:
    class Noted(TCPServer):
        modes: list[bool] = []

        def get_request(self) -> Any:
            self.modes.append(self.socket.getblocking())
            request, peer = super().get_request()
            self.modes.append(request.getblocking())
            return request, peer

    server = Noted(LOOPBACK, Echo)
    thread = Background(server.serve_forever)
    assert ask(server.server_address) == b"ping"
    server.shutdown()
    thread.result()
    assert server.modes == [False, True]
    assert server.socket.getblocking()
    server.server_close()


def test_a_timeout_of_the_listener_is_left_as_it_is() -> None:
    server = TCPServer(LOOPBACK, Echo)
    server.socket.settimeout(LIMIT)
    with serving(server) as address:
        assert ask(address) == b"ping"
        assert server.socket.gettimeout() == LIMIT


def test_a_connection_that_ends_before_accept_does_not_block_the_loop() -> None:
    class Stolen(TCPServer):
        thefts = 0

        def get_request(self) -> Any:
            if not self.thefts:
                self.thefts += 1
                self.socket.setblocking(True)
                self.socket.accept()[0].close()  # another process has accepted it first
                self.socket.setblocking(False)
            return super().get_request()

    with serving(Stolen(LOOPBACK, Echo)) as address:
        with connect(address) as stolen:
            assert stolen.recv(1) == b""
        assert ask(address) == b"ping"


@pytest.mark.parametrize("nagle", [True, False])
def test_nagle(nagle: bool) -> None:
    class Server(TCPServer):
        disable_nagle_algorithm = not nagle

    def tell(request: socket.socket, *_: Any) -> None:
        request.sendall(b"%d" % request.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    with serving(Server(LOOPBACK, tell)) as address, connect(address) as client:
        assert (read_all(client) == b"0") is nagle


def test_closing_ends_serve_forever() -> None:
    server = TCPServer(LOOPBACK, Echo)
    thread = Background(server.serve_forever)
    assert ask(server.server_address) == b"ping"
    server.server_close()
    server.server_close()
    thread.result()


def test_closing_between_the_wait_and_the_accept_ends_it_too() -> None:
    class Closed(TCPServer):
        def get_request(self) -> Any:
            self.server_close()
            return super().get_request()

    server = Closed(LOOPBACK, Echo)
    with connect(server.server_address):
        Background(server.serve_forever).result()


# -- the connections ---------------------------------------------------------------------------


def test_the_end_of_a_request() -> None:
    recorder = EventRecorder()
    server = TCPServer(LOOPBACK, Echo)
    server.subscribe(recorder)
    ours, peers = socket.socketpair()
    progress = server._everserve.progress
    connection = progress.accepted(ours, "peer")
    assert connection is not None
    progress.opened(connection, "peer", threading.get_ident)
    server.shutdown_request(ours)
    assert ours.fileno() == -1
    assert peers.recv(1) == b""
    assert recorder.events[2:] == [Finished(1, "peer", recorder.events[2].seconds)]  # type: ignore
    assert connection not in server.connections
    peers.close()
    server.server_close()


def test_a_peer_that_has_disconnected_does_not_prevent_it() -> None:
    with TCPServer(LOOPBACK, Echo) as server:
        ours, peers = socket.socketpair()
        peers.close()
        ours.shutdown(socket.SHUT_RDWR)
        server.shutdown_request(ours)
        server.shutdown_request(ours)
        assert ours.fileno() == -1


def test_close_request_alone_ends_it() -> None:
    with TCPServer(LOOPBACK, Echo) as server:
        ours, peers = socket.socketpair()
        server._everserve.connections.add(ours, "peer")
        server.close_request(ours)
        assert len(server.connections) == 0
        peers.close()


def test_requests_with_the_interface_of_a_socket() -> None:
    class Request:
        calls: list[str] = []

        def shutdown(self, how: int) -> None:
            self.calls.append("shutdown")

        def close(self) -> None:
            self.calls.append("close")

    with TCPServer(LOOPBACK, Echo) as server:
        server.shutdown_request(Request())
    assert Request.calls == ["shutdown", "close"]


@pytest.mark.parametrize("only", [0, 1])
def test_a_program_that_chooses_the_family_keeps_what_it_sets(only: int) -> None:
    """As ``python -m http.server`` does; the address of everserve's own choice is IPv6 alone."""

    class Server(TCPServer):
        address_family = socket.AF_INET6

        def server_bind(self) -> None:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
            super().server_bind()

    with Server(("::", 0), Echo) as server:
        assert server.socket.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == only
    with TCPServer(("::", 0), Echo) as server:
        assert server.socket.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1


def test_dead_peers_are_given_up_by_tcp() -> None:
    """Accepted connections have what the listener has."""

    class Server(TCPServer):
        keep_alive = 40
        tcp_user_timeout = 2.5

    with Server(LOOPBACK, Echo) as server, connect(server.server_address):
        request, _ = server.get_request()
        with request:
            tcp = socket.IPPROTO_TCP
            assert request.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert request.getsockopt(tcp, socket.TCP_KEEPIDLE) == 40
            assert request.getsockopt(tcp, socket.TCP_KEEPINTVL) == 10
            assert request.getsockopt(tcp, socket.TCP_KEEPCNT) == 4
            assert request.getsockopt(tcp, socket.TCP_USER_TIMEOUT) == 2500


def test_a_programs_own_attributes_are_no_options() -> None:
    class Server(TCPServer):
        keep_alive = "yes"  # type: ignore[assignment]
        tcp_user_timeout = -1

    with Server(LOOPBACK, Echo) as server:
        assert not server.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert not server.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
