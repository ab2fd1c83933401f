"""``defaults``: what ``serve()`` bounds where its caller does not."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from tests.clients import LIMIT, connect
from tests.docs.blocks import table_of
from tests.scenes import EventRecorder

import everserve
from everserve import defaults
from everserve.combos import CONCURRENCY
from everserve.defaults import (
    MAX_CONNECTIONS,
    MAX_DATAGRAMS,
    REPLY_BUDGET,
    STREAMS,
    bounds,
    explain_shortage,
)
from everserve.errors import LineTooLong
from everserve.events import Failed
from everserve.serving import make_group, make_server
from everserve.sockets import descriptors


class Lines(everserve.StreamRequestHandler[Any, Any]):
    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(b"%d\n" % len(line))


class Datagrams(everserve.DatagramRequestHandler[Any, Any]):
    def handle(self) -> None:
        self.wfile.write(self.packet)


@pytest.fixture(autouse=True)
def _limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(defaults, "raise_limit", lambda: 1000)


@pytest.mark.parametrize("concurrency", CONCURRENCY)
@pytest.mark.parametrize("scheme", ["tcp", "unix"])
def test_streams_are_bounded(concurrency: Any, scheme: str, tmp_path: Path) -> None:
    address = "tcp://127.0.0.1:0" if scheme == "tcp" else f"unix:{tmp_path}/s"
    with make_server(Lines, address, concurrency=concurrency) as server:
        assert {name: getattr(server, name) for name in STREAMS} == dict(STREAMS)
        assert server.max_connections == (None if concurrency == "pool" else 800)
        assert server.overload == (
            "wait" if concurrency in ("serial", "pool", "forks") else "reset"
        )


@pytest.mark.parametrize("concurrency", CONCURRENCY)
def test_datagrams_in_progress_are_bounded(concurrency: Any) -> None:
    with make_server(Datagrams, "udp://127.0.0.1:0", concurrency=concurrency) as server:
        assert server.max_connections == (None if concurrency == "pool" else MAX_DATAGRAMS)
        assert (server.idle_timeout, server.overload) == (None, "wait")


@pytest.mark.parametrize("name", [*STREAMS, "max_connections"])
def test_each_bound_can_be_taken_away(name: str) -> None:
    with make_server(Lines, "tcp://127.0.0.1:0", **{name: None}) as server:  # type: ignore[arg-type]
        assert getattr(server, name) is None


@pytest.mark.parametrize("name", ["max_connections", "max_handshakes", "accept_rate"])
def test_who_sets_a_limit_chooses_what_happens_above_it(name: str) -> None:
    with make_server(Lines, "tcp://127.0.0.1:0", **{name: 7}) as server:  # type: ignore[arg-type]
        assert (getattr(server, name), server.overload) == (7, "wait")
    with make_server(Lines, "tcp://127.0.0.1:0", overload="refuse") as server:
        assert server.overload == "refuse"


def test_the_servers_of_a_group_share_the_descriptors() -> None:
    with make_group(Lines, "tcp://127.0.0.1:0", "tcp://127.0.0.1:0") as group:
        assert [server.max_connections for server in group.servers] == [400, 400]


def test_there_are_never_more_than_the_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(defaults, "raise_limit", lambda: 1 << 20)
    assert bounds("fibers", datagrams=False, chosen={})["max_connections"] == MAX_CONNECTIONS
    monkeypatch.setattr(defaults, "raise_limit", lambda: 1)
    assert bounds("fibers", datagrams=False, chosen={})["max_connections"] == 1


def test_the_classes_have_no_bounds() -> None:
    for name in (*STREAMS, "max_connections"):
        assert getattr(everserve.FiberTCPServer, name) is None
    assert everserve.FiberTCPServer.overload == "wait"


class Own(Lines):
    max_line = 100


class Unbounded(Lines):
    max_line = None


@pytest.mark.parametrize(
    ("handler", "options", "longest"),
    [
        (Lines, {}, 65_536),
        (Lines, {"max_line": 10}, 10),
        (Lines, {"max_line": None}, None),
        (Own, {"max_line": 10}, 100),
        (Unbounded, {"max_line": 10}, None),
        (type("Later", (Own,), {}), {}, 100),
    ],
)
@pytest.mark.parametrize("concurrency", ["fibers", "threads"])
def test_a_line(concurrency: Any, handler: Any, options: Any, longest: int | None) -> None:
    recorder = EventRecorder()
    server = make_server(handler, "tcp://127.0.0.1:0", concurrency=concurrency, **options)
    server.subscribe(recorder)
    size = longest or 200_000
    with server.running(grace=LIMIT) as address, connect(address) as client:
        client.sendall(b"x" * (size - 1) + b"\n")
        assert client.recv(100) == b"%d\n" % size
        if longest:
            client.sendall(b"x" * longest)
            assert isinstance(recorder.wait_for(Failed)[0].error, LineTooLong)


def test_one_more_than_the_default_is_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(defaults, "raise_limit", lambda: 3)
    with make_server(Lines, "tcp://127.0.0.1:0").running(grace=LIMIT) as address:
        with connect(address) as first, connect(address) as second:
            for client in (first, second):
                client.sendall(b"x\n")
                assert client.recv(100) == b"2\n"
            with pytest.raises(ConnectionResetError), connect(address) as third:
                third.recv(1)  # or the reset came before `connect` has returned


def test_the_table_of_the_docs() -> None:
    rows = table_of("internet.md", "| option | what `serve()` sets |")
    assert [row[0].strip("`") for row in rows] == [
        "max_connections",
        "overload",
        *STREAMS,
        "max_connections",
        "reply_budget",
    ]
    assert str(MAX_CONNECTIONS) in rows[0][1].replace("_", "")
    assert f"`{REPLY_BUDGET}`" in rows[-1][1]
    for row, value in zip(rows[2:6], STREAMS.values(), strict=True):
        assert f"`{value}`" in row[1]


def test_the_limit_of_descriptors_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    wanted: list[Any] = []
    monkeypatch.setattr(resource, "getrlimit", lambda what: (256, 4096))
    monkeypatch.setattr(resource, "setrlimit", lambda what, limits: wanted.append(limits))
    assert descriptors.raise_limit() == 4096
    assert wanted == [(4096, 4096)]
    monkeypatch.setattr(resource, "getrlimit", lambda what: (256, resource.RLIM_INFINITY))
    assert descriptors.raise_limit() == 1 << 20
    monkeypatch.setattr(resource, "getrlimit", lambda what: (4096, 4096))
    assert descriptors.raise_limit() == 4096
    monkeypatch.setattr(resource, "getrlimit", lambda what: (resource.RLIM_INFINITY,) * 2)
    assert descriptors.raise_limit() == 1 << 20


def test_a_limit_that_cannot_be_raised_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")

    def refuse(what: int, limits: Any) -> None:
        raise ValueError

    monkeypatch.setattr(resource, "getrlimit", lambda what: (256, 4096))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert descriptors.raise_limit() == 256


def test_a_datagram_above_the_bound_waits_in_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(defaults, "MAX_DATAGRAMS", 1)

    class Held(everserve.DatagramRequestHandler[Any, Any]):
        def handle(self) -> None:
            if self.packet == b"first":
                self.wfile.write(b"%d" % len(self.server.connections))

    server = make_server(Held, "udp://127.0.0.1:0", concurrency="threads")
    with server.running(grace=LIMIT) as address, socket.socket(type=socket.SOCK_DGRAM) as client:
        client.settimeout(LIMIT)
        for _ in range(3):
            client.sendto(b"first", address)
        assert [client.recv(10) for _ in range(3)] == [b"1"] * 3


@pytest.mark.parametrize(
    ("concurrency", "wanted", "has_line"),
    [
        ("fibers", 968, False),
        ("fibers", 969, True),
        ("threads", 969, True),
        ("serial", 969, True),
        ("pool", 969, True),
        ("forks", 969, False),  # each connection is in a process of its own
        ("fibers", None, False),
    ],
)
def test_a_line_says_that_limits_and_descriptors_do_not_fit(
    concurrency: Any, wanted: int | None, has_line: bool
) -> None:
    with make_server(
        Lines, "tcp://127.0.0.1:0", concurrency=concurrency, max_connections=wanted
    ) as server:
        line = explain_shortage([server])
    assert (line is not None) is has_line
    if line is not None:
        assert "max_connections = 969 in all needs 1001 descriptors" in line
        assert "this process may have 1000: raise the hard limit" in line


def test_several_servers_share_the_descriptors() -> None:
    with (
        make_group(Lines, "tcp://127.0.0.1:0", "tcp://127.0.0.1:0", max_connections=500) as group,
        make_server(Datagrams, "udp://127.0.0.1:0") as datagrams,
    ):
        assert "max_connections = 1000 in all" in (explain_shortage(group.servers) or "")
        assert explain_shortage([datagrams]) is None
