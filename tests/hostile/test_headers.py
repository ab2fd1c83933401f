"""PROXY headers that are invalid, too long, unfinished, or from an untrusted peer."""

from __future__ import annotations

from typing import Any

import pytest
from tests.hostile.conftest import Besiege, Strategy

from everserve.admission.access import Networks
from everserve.events import DeadlineMissed, Refused
from everserve.sockets.tls import TLS

GOOD = b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 80\r\n"
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
TRUSTED: dict[str, Any] = {"proxy_protocol": True, "trusted_proxies": Networks(["127.0.0.0/8"])}

BAD = {
    "none": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "too long": b"PROXY TCP4 " + b"1" * 200 + b"\r\n",
    "never ends": b"PROXY UNKNOWN" + b" x" * 5000,
    "no port": b"PROXY TCP4 192.0.2.7 192.0.2.1 x 80\r\n",
    "no address": b"PROXY TCP4 300.0.2.7 192.0.2.1 4711 80\r\n",
    "line feed alone": GOOD.replace(b"\r", b""),
    "version 3": SIGNATURE + b"\x31\x11\0\x0c" + b"\0" * 12,
    "command 2": SIGNATURE + b"\x22\x11\0\x0c" + b"\0" * 12,
    "too short for its family": SIGNATURE + b"\x21\x11\0\x04" + b"\0" * 4,
    "a TLV beyond the end": SIGNATURE + b"\x21\x11\0\x0f" + b"\0" * 12 + b"\x04\xff\xff",
    "zeros": b"\0" * 1000,
    "TLS": b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + b"x" * 500,
    "nothing": b"",
    "ends inside": GOOD[:20],
    "ends inside, version 2": SIGNATURE + b"\x21\x11\0\x0c" + b"\0" * 5,
}


def test_a_bad_header_is_refused_unanswered(
    besiege: Besiege, strategy: Strategy, scheme: str
) -> None:
    siege = besiege(scheme=scheme, proxy_timeout=600, **TRUSTED)
    siege.before = GOOD
    for header in BAD.values():
        assert siege.attack("exchange", payload=header) == ""
    siege.recorder.wait_for(Refused, len(BAD))
    assert siege.reasons() == {"proxy": len(BAD)}


def test_a_header_has_a_time_limit(besiege: Besiege, strategy: Strategy, scheme: str) -> None:
    siege = besiege(scheme=scheme, proxy_timeout=0.1, **TRUSTED)
    siege.before = GOOD
    count = strategy.crowd if strategy.is_concurrent else 1
    siege.attack("hold", count=count, payload=GOOD[:20])
    assert len(siege.recorder.wait_for(DeadlineMissed, count)) == count
    siege.recorder.wait_for(Refused, count)
    assert siege.reasons() == {"proxy_timeout": count}


def test_a_missing_header_delays_no_other_connection(
    besiege: Besiege, concurrent: Strategy, tls: TLS
) -> None:
    siege = besiege(tls=tls, proxy_timeout=600, **TRUSTED)
    siege.before = GOOD
    siege.attack("hold", count=concurrent.crowd, payload=SIGNATURE)
    assert siege.serves()


@pytest.mark.parametrize("networks", ["10.0.0.0/8", "::1/128"])
def test_an_untrusted_peer_is_refused_unread(
    besiege: Besiege, strategy: Strategy, networks: str
) -> None:
    siege = besiege(proxy_protocol=True, trusted_proxies=networks)
    siege.attack("exchange", payload=GOOD + b"hello\n")
    siege.recorder.wait_for(Refused)
    assert siege.reasons() == {"untrusted_proxy": 1}
    siege.server.trusted_proxies = Networks(["127.0.0.0/8"])  # counts from the next connection
    siege.before = GOOD
