"""The servers that the collision tests run on, and how one request to each is made.

Each test runs on the standard library's servers too, which proves that its expectations hold there.
"""

from __future__ import annotations

import itertools
import socket
import socketserver
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests import clients
from tests.clients import Background

import everserve

LIMIT = 5.0
"""The time limit of a trial in seconds; a passing trial never comes near it."""

QUESTION, ANSWER = b"ping\n", b"PING\n"

FORKS_AMONG_THREADS = "ignore:This process .* is multi-threaded:DeprecationWarning"

STANDARD, EVERSERVE, MIXED = "standard", "everserve", "mixed"
"""Whose server it is; mixed: everserve's mix-in on the standard library's server."""

STRATEGIES = {"serial": "", "threads": "Threading", "pool": "ThreadPool", "fibers": "Fiber"}
STRATEGIES |= {"forks": "Forking", "asyncio": "Async"}

TWO_TRANSPORTS = ("tcp", "unixgram")
"""One of streams and one of datagrams, for what does not depend on the address."""

TRANSPORTS = {"tcp": "TCP", "udp": "UDP", "unix": "UnixStream", "unixgram": "UnixDatagram"}

_numbers = itertools.count()


@dataclass(frozen=True)
class Kind:
    """One kind of server: its library, its strategy, its transport."""

    home: str
    strategy: str
    transport: str

    def __str__(self) -> str:
        return f"{self.home}-{self.strategy}-{self.transport}"

    @property
    def number(self) -> int:
        """The index of the first value of a trial in a table: it differs between kinds."""
        return list(STRATEGIES).index(self.strategy) + list(TRANSPORTS).index(self.transport)

    @property
    def is_stream(self) -> bool:
        return self.transport in ("tcp", "unix")

    @property
    def is_unix(self) -> bool:
        return self.transport in ("unix", "unixgram")

    @property
    def module(self) -> Any:
        """Where the handlers come from."""
        return everserve if self.home == EVERSERVE else socketserver

    @property
    def server_class(self) -> Any:
        name = f"{TRANSPORTS[self.transport]}Server"
        mix_in = STRATEGIES[self.strategy]
        if self.home == EVERSERVE:
            return getattr(everserve, f"{mix_in}{name}")
        base = getattr(socketserver, name)
        module = everserve if self.home == MIXED else socketserver
        bases = (getattr(module, f"{mix_in}MixIn"), base) if mix_in else (base,)
        return type(f"{mix_in}{name}", bases, {})

    @property
    def standard_class(self) -> Any:
        """The standard library's class that a program written for it would have inherited."""
        strategy = "threads" if self.strategy in ("pool", "fibers", "asyncio") else self.strategy
        return Kind(STANDARD, strategy, self.transport).server_class

    @property
    def poll_interval(self) -> float:
        """The standard library's ``shutdown`` waits for the next poll; everserve's does not."""
        return 0.5 if self.home == EVERSERVE else 0.005

    def handler(self, **attributes: Any) -> Any:
        """A handler class that sends back one message in capitals."""
        return type("Upper", (self.module.BaseRequestHandler,), {"handle": upper, **attributes})

    def address(self, folder: Path) -> Any:
        return str(folder / f"s{next(_numbers)}") if self.is_unix else ("127.0.0.1", 0)

    def ask(self, server: Any, folder: Path, limit: float = LIMIT) -> bytes:
        """The server's answer to ``QUESTION``."""
        if self.is_stream:
            return clients.ask(server.server_address, QUESTION, limit=limit)
        with socket.socket(server.socket.family, socket.SOCK_DGRAM) as client:
            client.settimeout(limit)
            client.bind(self.address(folder))
            client.connect(server.server_address)
            client.send(QUESTION)
            return client.recv(1000)

    @contextmanager
    def serving(self, server: Any, limit: float = LIMIT) -> Iterator[Any]:
        """Serve in the background with the plain API, and shut down; the caller closes."""
        thread = Background(_serve_or_close, server, self.poll_interval)
        try:
            yield server
        finally:
            if thread.is_alive():
                Background(server.shutdown).result(limit)
            thread.result(limit)


def _serve_or_close(server: Any, poll_interval: float) -> None:
    """Close a server that has failed, so that its client does not wait."""
    try:
        server.serve_forever(poll_interval)
    except BaseException:
        server.socket.close()
        raise


def upper(handler: Any) -> None:
    """``handle`` of a handler without files, over either kind of transport."""
    if isinstance(handler.request, tuple):
        packet, sock = handler.request
        sock.sendto(packet.upper(), handler.client_address)
    else:
        handler.request.sendall(handler.request.recv(100).upper())


def reply_error(server: Any, request: Any, client_address: Any) -> None:
    """A ``handle_error`` that sends the error to the client, so that the test fails at once."""
    answer = f"failed: {sys.exception()!r}".encode()
    if isinstance(request, tuple):
        request[1].sendto(answer, client_address)
    else:
        request.sendall(answer)


HOMES = {
    STANDARD: ("serial", "threads", "forks"),
    EVERSERVE: tuple(STRATEGIES),
    MIXED: ("threads", "pool", "fibers", "forks", "asyncio"),
}


def kinds(*homes: str, transports: Sequence[str] = tuple(TRANSPORTS)) -> list[Any]:
    """Each kind of server of those homes, as parameters of a test.

    Of the servers that are the standard library's, one of streams and one of datagrams.
    """
    found = [
        Kind(home, strategy, transport)
        for home in homes or HOMES
        for strategy in HOMES[home]
        for transport in transports
        if home == EVERSERVE or transport in TWO_TRANSPORTS
    ]
    forks = pytest.mark.filterwarnings(FORKS_AMONG_THREADS)
    return [
        pytest.param(kind, id=str(kind), marks=forks if kind.strategy == "forks" else ())
        for kind in found
    ]


# -- a program's own attributes ------------------------------------------------------------------


def in_class(base: type, attributes: dict[str, Any]) -> type:
    return type("Program", (base,), dict(attributes))


def before_init(base: Any, attributes: dict[str, Any]) -> type:
    class Program(base):  # type: ignore[misc]
        def __init__(self, *arguments: Any) -> None:
            assign(self, attributes)
            super().__init__(*arguments)

    return Program


def after_init(base: Any, attributes: dict[str, Any]) -> type:
    class Program(base):  # type: ignore[misc]
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            assign(self, attributes)

    return Program


def while_serving(base: type, attributes: dict[str, Any]) -> type:
    return base  # the trial assigns them


PLACES = {
    "in the class": in_class,
    "before init": before_init,
    "after init": after_init,
    "while serving": while_serving,
}


def spread(names: Sequence[str], values: Sequence[Any], first: int) -> dict[str, Any]:
    """A value for each name, in turn, so that a few trials give every value to every name."""
    return {name: values[(first + place) % len(values)] for place, name in enumerate(names)}


def assign(owner: Any, attributes: dict[str, Any]) -> None:
    for name, value in attributes.items():
        setattr(owner, name, value)


def lost(owner: Any, attributes: dict[str, Any]) -> list[str]:
    """The names under which ``owner`` no longer has the program's value."""
    return [name for name, value in attributes.items() if not _has(owner, name, value)]


def _has(owner: Any, name: str, value: Any) -> bool:
    if hasattr(value, "__get__") and name in vars(type(owner)):  # a method, a property
        return vars(type(owner))[name] is value
    return getattr(owner, name, _has) is value


def trial(
    kind: Kind, folder: Path, place: str, attributes: dict[str, Any], limit: float = LIMIT
) -> str | None:
    """Serve one request with a program's own ``attributes``. Returns the problem, if there is one."""
    try:
        base = type("Base", (kind.server_class,), {"handle_error": reply_error})
        program = PLACES[place](base, attributes)
        with program(kind.address(folder), kind.handler()) as server:
            with kind.serving(server, limit):
                if place == "while serving":
                    assert kind.ask(server, folder, limit) == ANSWER
                    assign(server, attributes)
                answer = kind.ask(server, folder, limit)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    if answer != ANSWER:
        return f"the answer is {answer!r}"
    names = lost(server, attributes)
    return f"the program has lost {', '.join(names)}" if names else None


def must_pass(
    attributes: dict[str, Any], attempt: Callable[[dict[str, Any], float], str | None]
) -> None:
    """Fail if ``attempt(attributes, limit)`` finds a problem, with one attribute that causes it."""
    problem = attempt(attributes, LIMIT)
    if problem is None:
        return
    name = culprit(list(attributes), lambda some: attempt({n: attributes[n] for n in some}, 1.0))
    alone = attempt({name: attributes[name]}, 1.0)
    if alone is None:
        pytest.fail(f"with {len(attributes)} attributes together: {problem}")
    pytest.fail(f"{name} = {attributes[name]!r}: {alone}")


def culprit(names: list[str], attempt: Callable[[Iterable[str]], object]) -> str:
    """One of the names with which ``attempt`` finds a problem, by bisection."""
    while len(names) > 1:
        half = len(names) // 2
        names = names[:half] if attempt(names[:half]) else names[half:]
    return names[0]
