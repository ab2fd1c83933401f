"""``sockets.tls.identity``: who the peer is, and what the handshake negotiated."""

from __future__ import annotations

import dataclasses
import datetime
import ssl

import pytest
from tests.certificates import Certificates
from tests.sockets.tls.peers import peers, plain_peers

from everserve.sockets.tls import TLS, TLSIdentity


@pytest.fixture
def tls(certificates: Certificates) -> TLS:
    return TLS(*certificates.server, client_ca=certificates.authority, alpn=["echo"])


def test_all_that_is_known(tls: TLS, certificates: Certificates) -> None:
    context = certificates.client_context(certificates.client)
    context.set_alpn_protocols(["echo"])
    with peers(tls, context) as (server, client):
        identity = server.identity()
        assert identity.version == client.version() == "TLSv1.3"
        assert identity.cipher == client.cipher()[0]
    assert identity.alpn == "echo"
    assert identity.sni == "localhost"
    assert ("commonName", "alice") in identity.subject
    assert identity.common_name == "alice"
    assert ("email", "alice@example.org") in identity.alt_names
    assert "trustme" in dict(identity.issuer)["organizationName"]
    assert int(identity.serial or "", 16)
    assert identity.verified
    now = datetime.datetime.now(datetime.UTC)
    assert identity.not_before < now < identity.not_after
    pem = certificates.client.cert.read_text().partition("-----END CERTIFICATE-----")
    assert identity.der == ssl.PEM_cert_to_DER_cert(pem[0] + pem[1])
    assert "der" not in repr(identity)


def test_it_is_frozen() -> None:
    identity = TLSIdentity(version="TLSv1.3", cipher=None)
    with pytest.raises(dataclasses.FrozenInstanceError):
        identity.version = "SSLv2"  # type: ignore[misc]
    assert hash(identity) == hash(TLSIdentity(version="TLSv1.3", cipher=None))


def test_without_a_certificate(certificates: Certificates) -> None:
    with peers(TLS(*certificates.server), certificates.client_context()) as (server, _client):
        identity = server.identity()
    assert not identity.verified
    assert identity.common_name is None
    assert identity.der is None
    assert identity.subject == identity.issuer == identity.alt_names == ()
    assert identity.not_after is None
    assert identity.sni == "localhost"


def test_it_can_be_asked_for_after_the_end(tls: TLS, certificates: Certificates) -> None:
    context = certificates.client_context(certificates.client)
    with peers(tls, context) as (server, _client):
        server.close()
        assert server.identity().common_name == "alice"


def test_there_is_none_before_the_handshake(tls: TLS) -> None:
    with plain_peers() as (plain, _client):
        server = tls.wrap(plain)
        assert server.version() is None
        assert server.cipher() is None
        assert server.server_hostname is None
        with pytest.raises(ValueError, match="handshake not done yet"):
            server.identity()
