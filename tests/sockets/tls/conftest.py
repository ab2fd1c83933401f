"""What the tests of sockets share."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from typing import Any

import pytest
from tests.certificates import Certificates
from tests.clients import Background
from tests.engines import in_place
from tests.sockets.tls.peers import KINDS, Pair, peers, plain_peers

from everserve.sockets.tls import TLS, TLSSocket


@pytest.fixture(params=["native", "python"])
def parts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The parts of one engine, in place of the chosen one."""
    return in_place(request.param, monkeypatch)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates for the tests, made once for the run."""
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def tls(certificates: Certificates) -> TLS:
    return TLS(*certificates.server)


@pytest.fixture(
    params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda version: version.name
)
def context(certificates: Certificates, request: pytest.FixtureRequest) -> ssl.SSLContext:
    context = certificates.client_context()
    context.maximum_version = request.param
    return context


@pytest.fixture(params=sorted(KINDS))
def pair(tls: TLS, context: ssl.SSLContext, request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Both versions of TLS, on each kind of `TLSSocket`."""
    with peers(tls, context, kind=request.param) as pair:
        yield pair


@pytest.fixture
def one(tls: TLS, certificates: Certificates) -> Iterator[Pair]:
    """TLS 1.3 on a plain socket."""
    with peers(tls, certificates.client_context()) as pair:
        yield pair


@pytest.fixture(params=sorted(KINDS))
def duplex(
    tls: TLS, context: ssl.SSLContext, request: pytest.FixtureRequest
) -> Iterator[tuple[TLSSocket, TLSSocket]]:
    """Both ends are ours: of Python 3.11, `ssl.SSLSocket` fails with a reader beside a writer."""
    with plain_peers() as (plain, raw):
        server = KINDS[request.param](tls, plain)
        client = TLSSocket(raw, context, server_side=False, server_hostname="localhost")
        handshake = Background(server.do_handshake)
        client.do_handshake()
        handshake.result()
        yield server, client
        server.inner.close()
