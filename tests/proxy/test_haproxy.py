"""A real HAProxy in front: it passes on the client's address and TLS."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest
from tests.certificates import Certificates
from tests.clients import LIMIT
from tests.proxy.conftest import TRUSTED, Serve, talk
from tests.scenes import EventRecorder

from everserve.admission.access import Networks
from everserve.events import Refused
from everserve.sockets.tls import TLS


def connect(address: Any) -> socket.socket:
    return socket.create_connection(address, LIMIT)


@pytest.mark.parametrize(
    ("how", "version"), [("send-proxy", 1), ("send-proxy-v2", 2)], ids=["v1", "v2"]
)
def test_the_clients_address_gets_through(
    serve: Serve, haproxy: Callable[..., Any], how: str, version: int
) -> None:
    server = serve(**TRUSTED)
    front = haproxy(server, how)
    for _ in range(3):
        with connect(front) as client:
            report, own = talk(client), list(client.getsockname())
        assert report["client_address"] == report["address"] == own
        assert report["destination"] == list(front)
        assert report["proxy_address"] != own
        assert report["proxy_address"][0] == "127.0.0.1"
        assert (report["version"], report["command"]) == (version, "PROXY")


def test_tls_passes_through(
    serve: Serve, haproxy: Callable[..., Any], certificates: Certificates
) -> None:
    server = serve(tls=TLS(*certificates.server, alpn=["one", "two"]), **TRUSTED)
    front = haproxy(server, "send-proxy-v2")
    context = certificates.client_context()
    context.set_alpn_protocols(["two"])
    with connect(front) as raw, context.wrap_socket(raw, server_hostname="localhost") as client:
        report, own = talk(client), list(client.getsockname())
    assert report["client_address"] == own
    assert report["tls"] == {"sni": "localhost", "alpn": "two"}
    assert report["version"] == 2


def test_haproxy_reports_the_tls_that_it_terminated(
    serve: Serve, haproxy: Callable[..., Any], certificates: Certificates
) -> None:
    server = serve(**TRUSTED)
    pem = certificates.folder / "haproxy.pem"
    pem.write_bytes(b"".join(path.read_bytes() for path in certificates.server))
    front = haproxy(
        server,
        "send-proxy-v2-ssl-cn",
        bind=f"ssl crt {pem} ca-file {certificates.authority} verify required",
    )
    context = certificates.client_context(certificates.client)
    with connect(front) as raw, context.wrap_socket(raw, server_hostname="localhost") as client:
        report, own = talk(client), list(client.getsockname())
    assert report["client_address"] == own
    assert report["ssl"] == {"secure": True, "common_name": "alice"}
    assert report["tls"] is None


def test_health_checks_are_answered_as_the_proxys_own(
    serve: Serve, haproxy: Callable[..., Any]
) -> None:
    """HAProxy's checks have LOCAL: the connection's own ends count, and requests work as before."""
    recorder = EventRecorder()
    server = serve(**TRUSTED)
    server.subscribe(recorder)
    front = haproxy(server, "send-proxy-v2 check check-send-proxy inter 50ms")
    with connect(front) as client:
        assert talk(client)["client_address"] == list(client.getsockname())
    assert not recorder.of(Refused)


def test_an_untrusted_proxy_is_refused(serve: Serve, haproxy: Callable[..., Any]) -> None:
    recorder = EventRecorder()
    server = serve(**TRUSTED | {"trusted_proxies": Networks(["10.0.0.0/8"])})
    server.subscribe(recorder)
    with connect(haproxy(server, "send-proxy-v2")) as client:
        client.sendall(b"who\n")
        assert client.recv(100) == b""
    assert recorder.wait_for(Refused)[0].reason == "untrusted_proxy"
