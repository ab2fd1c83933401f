"""Handshakes that break off, and clients with wrong names or certificates."""

from __future__ import annotations

import pytest
from tests.certificates import Certificates
from tests.hostile.conftest import Besiege, Strategy, pair_of

from everserve.events import Refused
from everserve.sockets.tls import TLS

STEPS = 6
"""The steps of a TLS 1.3 handshake: before, in the middle of and after each of two flights."""


@pytest.mark.parametrize("how", ["reset", "close"])
def test_it_breaks_off_at_every_step(
    besiege: Besiege, strategy: Strategy, tls: TLS, how: str
) -> None:
    siege = besiege(tls=tls)
    went = [siege.attack("cut", ca=siege.tls["ca"], step=step, how=how) for step in range(STEPS)]
    assert all(went)
    siege.wait_ends(STEPS)
    assert siege.reasons()["handshake"] >= STEPS - 1  # after the last flight the handshake is over


def test_a_wrong_name(besiege: Besiege, strategy: Strategy, certificates: Certificates) -> None:
    """A client that requests an unknown name gets the default certificate, and refuses it."""
    tls = TLS(*certificates.server, sni={"one.example.org": certificates.named})
    siege = besiege(tls=tls)
    assert siege.ask(tls=siege.tls | {"name": "one.example.org"}) == {"answer": "HELLO\n"}
    wrong = siege.ask(tls=siege.tls | {"name": "two.example.org"})
    assert wrong["error"] == "SSLCertVerificationError"
    siege.wait_ends(2)


def test_client_certificates(
    besiege: Besiege, strategy: Strategy, certificates: Certificates
) -> None:
    siege = besiege(tls=TLS(*certificates.server, client_ca=certificates.authority))
    strangers = [certificates.expired_client, certificates.strange_client]
    for pair in [None, *map(pair_of, strangers)]:
        assert "error" in siege.ask(tls=siege.tls | {"pair": pair}) or pair is None
    refused = siege.recorder.wait_for(Refused, 3)
    assert siege.reasons() == {"handshake": 3}
    replies = [str(event.error) for event in refused]
    for word, text in zip(
        ("PEER_DID_NOT_RETURN", "certificate has expired", "unable to get local issuer"),
        replies,
        strict=True,
    ):
        assert word.lower() in text.lower()
    siege.tls["pair"] = pair_of(certificates.client)


def test_http_on_the_port_of_tls(besiege: Besiege, strategy: Strategy, tls: TLS) -> None:
    siege = besiege(tls=tls)
    siege.attack("exchange", payload=b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    siege.recorder.wait_for(Refused)
    assert siege.reasons() == {"handshake": 1}
