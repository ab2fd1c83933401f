"""``admission.steps``: the steps of a request before its handler."""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.certificates import Certificates
from tests.clients import LIMIT, ask, connect, read_all
from tests.scenes import EventRecorder

import everserve
from everserve.admission.context import Refusal, RequestContext
from everserve.admission.steps import STEPS
from everserve.errors import HandshakeError, TLSConfigError
from everserve.events import DeadlineMissed, Failed, Finished, Opened, Refused
from everserve.serving import make_server
from everserve.sockets.counted import CountedSocket
from everserve.sockets.tls import TLS

HEADER = b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 80\r\n"
REAL = ("192.0.2.7", 4711)
TRUSTED: dict[str, Any] = {"proxy_protocol": True, "trusted_proxies": "127.0.0.1"}


class Upper(everserve.StreamRequestHandler[Any, Any]):
    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line.upper())


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def recorder() -> EventRecorder:
    return EventRecorder()


@pytest.fixture
def serve(recorder: EventRecorder) -> Iterator[Any]:
    blocks = []

    def make(handler: Any = Upper, address: str = "tcp://127.0.0.1:0", **settings: Any) -> Any:
        server = make_server(handler, address, concurrency="threads", **settings)
        server.subscribe(recorder)
        block = server.running()
        block.__enter__()
        blocks.append(block)
        return server

    yield make
    for block in blocks:
        block.__exit__(None, None, None)


def test_their_order() -> None:
    names = [step.__name__ for step in STEPS]  # type: ignore[attr-defined]
    assert names == ["read_proxy_header", "do_handshake", "arm_deadlines"]


def test_a_custom_step(serve: Any, recorder: EventRecorder) -> None:
    def read_greeting(context: RequestContext) -> None:
        if context.request.recv(6) != b"hello\n":
            raise Refusal("impolite")

    server = serve(admission_steps=(read_greeting, *STEPS))
    assert ask(server.server_address, b"hello\nline\n") == b"LINE\n"
    with connect(server.server_address) as client, suppress(ConnectionResetError):
        client.sendall(b"hallo\n")
        assert client.recv(100) == b""
    (refused,) = recorder.wait_for(Refused)
    assert (refused.reason, refused.error) == ("impolite", None)
    assert len(recorder.of(Opened)) == 1
    assert server._everserve.control.refusals == {"impolite": 1}


def test_a_step_that_is_broken_refuses(serve: Any, recorder: EventRecorder) -> None:
    def broken(context: RequestContext) -> None:
        raise ValueError("meant to fail")

    server = serve(admission_steps=(broken,))
    server.handle_error = lambda *_: None
    assert ask(server.server_address, b"") == b""
    (refused,) = recorder.wait_for(Refused)
    assert (refused.reason, str(refused.error)) == ("error", "meant to fail")


def test_the_header_is_taken_and_nothing_else(serve: Any, recorder: EventRecorder) -> None:
    server = serve(**TRUSTED)
    assert ask(server.server_address, HEADER + b"line\n") == b"LINE\n"
    recorder.wait_for(Finished)
    assert recorder.of(Opened)[0].peer == REAL


def test_bytes_before_the_header_are_refused(serve: Any, recorder: EventRecorder) -> None:
    server = serve(**TRUSTED)
    with connect(server.server_address) as client, suppress(ConnectionResetError):
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert client.recv(100) == b""
    (refused,) = recorder.wait_for(Refused)
    assert refused.reason == "proxy"
    assert isinstance(refused.error, everserve.errors.ProxyHeaderError)


def test_the_header_then_tls(
    serve: Any, recorder: EventRecorder, certificates: Certificates
) -> None:
    server = serve(tls=TLS(*certificates.server), **TRUSTED)
    with connect(server.server_address) as raw:
        raw.sendall(HEADER)
        context = certificates.client_context()
        with context.wrap_socket(raw, server_hostname="localhost") as client:
            client.sendall(b"line\n")
            assert client.recv(100) == b"LINE\n"
    recorder.wait_for(Finished)
    assert recorder.of(Opened)[0].peer == REAL


def test_a_custom_context_is_accepted(serve: Any, certificates: Certificates) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificates.server)
    given = serve(tls=context)
    later = serve()
    later.tls = TLS.of(context)
    for server in (given, later):
        with connect(server.server_address) as raw:
            wrapped = certificates.client_context().wrap_socket(raw, server_hostname="localhost")
            with wrapped as client:
                client.sendall(b"line\n")
                assert client.recv(100) == b"LINE\n"
        with pytest.raises(TLSConfigError):
            server.reload_tls()


@pytest.mark.parametrize("value", [True, False, "server.pem", "context"])
def test_a_tls_attribute_of_another_type_is_the_programs_own(
    serve: Any, certificates: Certificates, value: Any
) -> None:
    server = serve()
    if value == "context":
        value = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        value.load_cert_chain(*certificates.server)
    server.tls = value
    assert ask(server.server_address, b"line\n") == b"LINE\n"
    with pytest.raises(TLSConfigError, match="nothing to reload"):
        server.reload_tls()
    assert server.tls is value


def test_reload_without_tls(serve: Any) -> None:
    with pytest.raises(TLSConfigError, match="nothing to reload"):
        serve().reload_tls()


def test_new_connections_get_a_renewed_certificate(
    serve: Any, certificates: Certificates, tmp_path: Path
) -> None:
    cert, key = tmp_path / "cert", tmp_path / "key"

    def install(pair: Any) -> None:
        cert.write_bytes(pair.cert.read_bytes())
        key.write_bytes(pair.key.read_bytes())

    def serial() -> int:
        with connect(server.server_address) as raw:
            wrapped = certificates.client_context().wrap_socket(raw, server_hostname="localhost")
            with wrapped as client:
                return int(client.getpeercert()["serialNumber"], 16)  # type: ignore[index]

    install(certificates.server)
    server = serve(tls=TLS(cert, key))
    first = serial()
    install(certificates.renewed)
    assert serial() == first
    server.reload_tls()
    second = serial()
    assert second != first
    key.write_text("broken")
    with pytest.raises(TLSConfigError):
        server.reload_tls()
    assert serial() == second


def test_a_watch_finds_a_renewed_certificate(
    serve: Any, certificates: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cert = tmp_path / "cert"
    pair = certificates.server
    cert.write_bytes(pair.cert.read_bytes() + pair.key.read_bytes())
    tls = TLS(cert)
    reloaded = EventRecorder()
    reload = TLS.reload
    monkeypatch.setattr(TLS, "reload", lambda self: (reload(self), reloaded(Refused(0, 0, "x"))))
    server = serve(tls=tls, tls_reload_interval=0.02)
    assert len(server._everserve.watchdog) == 1
    cert.write_bytes(certificates.renewed.cert.read_bytes() + certificates.renewed.key.read_bytes())
    reloaded.wait_for(Refused)
    server.stop()
    assert len(server._everserve.watchdog) == 0


class Wishing(everserve.StreamRequestHandler[Any, Any]):
    """Sends ``go``, starts TLS, and answers."""

    def handle(self) -> None:
        assert self.rfile.readline() == b"STARTTLS\n"
        assert self.peer.tls is None
        self.wfile.write(b"go\n")
        self.start_tls()
        assert self.peer.tls is not None
        self.wfile.write(self.peer.tls.version.encode() + b" " + self.rfile.readline())


def test_start_tls(serve: Any, recorder: EventRecorder, certificates: Certificates) -> None:
    server = serve(Wishing, tls=TLS(*certificates.server), implicit_tls=False)
    with connect(server.server_address) as raw:
        raw.sendall(b"STARTTLS\n")
        assert raw.recv(3) == b"go\n"
        wrapped = certificates.client_context().wrap_socket(raw, server_hostname="localhost")
        with wrapped as client:
            client.sendall(b"line\n")
            assert client.makefile("rb").readline() == b"TLSv1.3 line\n"
            assert client.recv(1) == b""
    recorder.wait_for(Finished)


def test_cleartext_before_tls_is_discarded(
    serve: Any, recorder: EventRecorder, certificates: Certificates
) -> None:
    server = serve(Wishing, tls=TLS(*certificates.server), implicit_tls=False)
    with connect(server.server_address) as raw:
        raw.sendall(b"STARTTLS\ninjected\n")
        assert raw.recv(3) == b"go\n"
        wrapped = certificates.client_context().wrap_socket(raw, server_hostname="localhost")
        with wrapped as client:
            client.sendall(b"line\n")
            assert client.makefile("rb").readline() == b"TLSv1.3 line\n"
    recorder.wait_for(Finished)


def test_start_tls_that_fails(
    serve: Any,
    recorder: EventRecorder,
    certificates: Certificates,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = serve(
        Wishing, tls=TLS(*certificates.server), implicit_tls=False, handshake_timeout=0.1
    )
    with connect(server.server_address) as raw:
        raw.sendall(b"STARTTLS\n")
        assert read_all(raw) == b"go\n"
    (failed,) = recorder.wait_for(Failed)
    assert isinstance(failed.error, ConnectionAbortedError)
    assert failed.peer_gone
    assert recorder.of(DeadlineMissed)[0].deadline == "handshake_timeout"
    assert server._everserve.control.handshakes == 0


def test_bytes_that_are_not_tls_are_the_peers_fault(
    serve: Any,
    recorder: EventRecorder,
    certificates: Certificates,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """No error and no traceback: any client could fill the log with them."""
    starting = serve(Wishing, tls=TLS(*certificates.server), implicit_tls=False)
    with connect(starting.server_address) as raw:
        raw.sendall(b"STARTTLS\n")
        assert raw.recv(3) == b"go\n"
        raw.sendall(b"no handshake at all\n")
        read_all(raw)
    implicit = serve(Upper, tls=TLS(*certificates.server))
    for garbage in (b"no TLS any more\n", b"\x17\x03\x03\x00\x20" + bytes(32)):
        with connect(implicit.server_address) as raw:
            tls = certificates.client_context().wrap_socket(raw, server_hostname="localhost")
            with socket.socket(fileno=tls.detach()) as broken:
                broken.settimeout(LIMIT)
                broken.sendall(garbage)
                read_all(broken)
    failed = recorder.wait_for(Failed, 3)
    assert [type(event.error) for event in failed] == [HandshakeError, ssl.SSLError, ssl.SSLError]
    assert all(event.peer_gone for event in failed)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_start_tls_needs_a_certificate(serve: Any) -> None:
    errors: list[TLSConfigError] = []

    class Starting(everserve.StreamRequestHandler[Any, Any]):
        def handle(self) -> None:
            try:
                self.start_tls()
            except TLSConfigError as error:
                errors.append(error)

    assert ask(serve(Starting).server_address, b"") == b""
    assert "needs the server's tls" in str(errors[0])


def test_the_end_is_sent_in_tls(serve: Any, certificates: Certificates) -> None:
    """With a close_notify, so that the client knows that the answer is complete."""

    class Bye(everserve.StreamRequestHandler[Any, Any]):
        def handle(self) -> None:
            self.wfile.write(b"bye\n")

    server = serve(Bye, tls=TLS(*certificates.server))
    with connect(server.server_address) as raw:
        context = certificates.client_context()
        with context.wrap_socket(
            raw, server_hostname="localhost", suppress_ragged_eofs=False
        ) as client:
            assert client.makefile("rb").read() == b"bye\n"


@pytest.mark.parametrize(
    "settings", [{"idle_timeout": 60}, {"write_timeout": 60}, {"overload": "shed-idle"}]
)
def test_over_a_unix_socket_it_is_counted(
    serve: Any, recorder: EventRecorder, tmp_path: Path, settings: dict[str, Any]
) -> None:
    seen: list[Any] = []

    class Look(everserve.StreamRequestHandler[Any, Any]):
        def handle(self) -> None:
            self.wfile.write(self.rfile.readline())
            connection = self.server._everserve.connection_of(self.request)
            seen.append((type(self.request), connection.traffic()[1:], self.peer.transport))

    server = serve(Look, f"unix:{tmp_path}/server", **settings)
    assert ask(server.server_address, b"line\n") == b"line\n"
    recorder.wait_for(Finished)
    assert seen == [(CountedSocket, (5, 5, False), "unix")]


def test_over_tcp_it_is_not(serve: Any, recorder: EventRecorder) -> None:
    seen: list[Any] = []

    class Look(everserve.StreamRequestHandler[Any, Any]):
        def handle(self) -> None:
            seen.append(type(self.request).__name__)
            self.rfile.read()  # unread bytes would reset the connection

    ask(serve(Look, idle_timeout=60).server_address, b"line\n")
    recorder.wait_for(Finished)
    assert seen == ["socket"]


def test_the_deadline_that_a_handler_sees(serve: Any, recorder: EventRecorder) -> None:
    seen: list[Any] = []

    class Look(everserve.StreamRequestHandler[Any, Any]):
        def handle(self) -> None:
            seen.append(self.deadline)

    ask(serve(Look, request_timeout=60).server_address, b"")
    ask(serve(Look).server_address, b"")
    recorder.wait_for(Finished, 2)
    assert seen[0] > 0
    assert seen[1] is None
