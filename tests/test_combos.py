"""``combos``: a ready-made server for each strategy and each transport."""

from __future__ import annotations

import subprocess
import sys
import typing

import pytest

import everserve
from everserve import combos
from everserve.combos import CONCURRENCY, server_class
from everserve.errors import AddressError, OptionError
from everserve.serving import Concurrency

STRATEGIES = {
    "serial": None,
    "threads": "ThreadingMixIn",
    "pool": "ThreadPoolMixIn",
    "forks": "ForkingMixIn",
    "fibers": "FiberMixIn",
    "asyncio": "AsyncMixIn",
}
OF_SESSIONS = ("threads", "pool", "fibers")
TRANSPORTS = {
    "tcp": "TCPServer",
    "tls": "TCPServer",
    "udp": "UDPServer",
    "unix": "UnixStreamServer",
    "unixgram": "UnixDatagramServer",
}


def test_the_tables_are_complete() -> None:
    assert set(CONCURRENCY) == set(STRATEGIES)
    for classes in combos._CLASSES.values():
        assert {*classes, "tls"} == set(TRANSPORTS)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("concurrency", STRATEGIES)
def test_a_class_for_each_pair(concurrency: str, transport: str) -> None:
    found = server_class(concurrency, transport)
    mix_in = STRATEGIES[concurrency]
    base = getattr(everserve, TRANSPORTS[transport])
    assert found.__name__ in everserve.__all__
    if mix_in is None:
        assert found is base
    else:
        assert found.__bases__ == (getattr(everserve, mix_in), base)


@pytest.mark.parametrize("transport", ["udp", "unixgram"])
@pytest.mark.parametrize("concurrency", OF_SESSIONS)
def test_a_class_with_sessions(concurrency: str, transport: str) -> None:
    found = server_class(concurrency, transport, sessions=True)
    bases = server_class(concurrency, transport).__bases__
    assert found.__bases__ == (everserve.DatagramSessionMixIn, *bases)
    assert found._everserve.strategy.name == concurrency
    assert found.__name__ in everserve.__all__


@pytest.mark.parametrize("concurrency", ["serial", "forks"])
def test_a_strategy_without_sessions(concurrency: str) -> None:
    with pytest.raises(OptionError, match="sessions need one of fibers, threads, pool"):
        server_class(concurrency, "udp", sessions=True)


def test_each_class_is_one_of_the_pairs() -> None:
    named = {
        server_class(concurrency, transport).__name__
        for concurrency in STRATEGIES
        for transport in TRANSPORTS
        if concurrency != "serial"
    } | {
        server_class(concurrency, transport, sessions=True).__name__
        for concurrency in OF_SESSIONS
        for transport in ("udp", "unixgram")
    }
    assert set(combos.__all__) == named


@pytest.mark.parametrize("transport", ["tcp", "udp"])
@pytest.mark.parametrize("concurrency", STRATEGIES)
def test_the_name_is_that_of_the_strategy(concurrency: str, transport: str) -> None:
    assert server_class(concurrency, transport)._everserve.strategy.name == concurrency


def test_the_names_are_those_of_the_type() -> None:
    assert set(typing.get_args(Concurrency)) == set(CONCURRENCY)


def test_an_unknown_strategy_names_those_that_exist() -> None:
    with pytest.raises(OptionError, match=r"concurrency = 'thread': there are .*threads, pool"):
        server_class("thread", "tcp")


def test_a_transport_that_the_system_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(combos._CLASSES["forks"], "unix")
    message = rf"unix: is not available on this system \({sys.platform}"
    with pytest.raises(AddressError, match=message):
        server_class("forks", "unix")


ELSEWHERE = """
import os, socket
del os.fork, socket.AF_UNIX
import everserve
names = set(everserve.__all__)
assert not [name for name in names if "Fork" in name or "Unix" in name], names
assert {"TCPServer", "ThreadingUDPServer", "ThreadPoolTCPServer"} <= names
from everserve.combos import CONCURRENCY
print(*CONCURRENCY)
"""


def test_where_there_is_no_fork_and_no_unix_socket() -> None:
    child = subprocess.run([sys.executable, "-c", ELSEWHERE], capture_output=True, text=True)
    assert (child.stdout, child.stderr) == ("fibers serial threads pool asyncio\n", "")
