"""A server under attack by another process, which must work afterwards as before."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.certificates import Certificates, Pair
from tests.clients import LIMIT
from tests.orders import OrderCheck
from tests.scenes import EventRecorder

import everserve
from everserve.events import Accepted, Failed, Finished, Refused
from everserve.lifecycle.state import ServerState
from everserve.serving import make_server

ROOT = Path(__file__).parents[2]
FLOOD = b"x" * (1 << 20)
FORKS_AMONG_THREADS = "ignore:This process .* is multi-threaded:DeprecationWarning"


@dataclass(frozen=True)
class Strategy:
    """A strategy. ``crowd``: the number of connections at once; ``room``: the options for them."""

    name: str
    crowd: int
    room: dict[str, int]
    marks: tuple[Any, ...] = ()

    @property
    def is_concurrent(self) -> bool:
        return self.name != "serial"


STRATEGIES = [
    Strategy("serial", 30, {}),
    Strategy("threads", 120, {}),
    Strategy("pool", 60, {"max_workers": 80}),
    Strategy(
        "forks",
        25,
        {"max_children": 60},
        (pytest.mark.filterwarnings(FORKS_AMONG_THREADS),),
    ),
    Strategy("fibers", 200, {}),
    Strategy("asyncio", 200, {}),
]


class Upper(everserve.StreamRequestHandler[Any, Any]):
    """Lines in capitals; for ``flood`` more than any client reads."""

    def handle(self) -> None:
        for line in self.rfile:
            if line == b"flood\n":
                for _ in range(16):
                    self.wfile.write(FLOOD)
            else:
                self.wfile.write(line.upper())
                self.wfile.flush()


class AsyncUpper(everserve.AsyncStreamRequestHandler[Any, Any]):
    """The same as a coroutine."""

    async def handle(self) -> None:
        async for line in self.rfile:
            if line == b"flood\n":
                for _ in range(16):
                    self.wfile.write(FLOOD)
                    await self.wfile.drain()
            else:
                self.wfile.write(line.upper())
                await self.wfile.flush()


class Attacker:
    """The process of ``tests.hostile.attacker``: a method for each of its commands."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.hostile.attacker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    def __getattr__(self, command: str) -> Callable[..., Any]:
        def call(*address: Any, **arguments: Any) -> Any:
            return self._ask({"do": command, **arguments} | dict(zip(["address"], address)))  # noqa: B905

        return call

    def _ask(self, command: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command, default=_plain) + "\n")
        self._process.stdin.flush()
        reply = json.loads(self._process.stdout.readline())
        assert "error" not in reply, reply
        return reply["value"]

    def end(self) -> None:
        self._process.communicate()


def _plain(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else str(value)


class Siege:
    """A server in the background, a recorder of its events, and its attacker."""

    def __init__(self, server: Any, attacker: Attacker, tls: Any = None) -> None:
        self.server = server
        self.attacker = attacker
        self.recorder = EventRecorder()
        self.tls = tls
        self.before = b""  # the first bytes of a good client
        own = os.getpid()
        # A forked child would have a copy of the recorder's lock, as the fork left it.
        server.subscribe(lambda event: self.recorder(event) if os.getpid() == own else None)
        self.order = OrderCheck()
        server.subscribe(self.order)

    @property
    def address(self) -> Any:
        return self.server.server_address

    def ask(self, line: str = "hello\n", **how: Any) -> dict[str, Any]:
        """Be a client, a good one unless ``how`` makes it another."""
        chosen = {"tls": self.tls, "before": self.before} | how
        answer: dict[str, Any] = self.attacker.ask(self.address, line=line, **chosen)
        return answer

    def serves(self) -> bool:
        """True if a good client is served."""
        return self.ask() == {"answer": "HELLO\n"}

    def lift_time_limits(self, *names: str) -> None:
        """From the next connection on: a good client may be late where the machine is busy."""
        for name in names:
            setattr(self.server, name, LIMIT if name.endswith("_timeout") else None)

    def attack(self, command: str, **arguments: Any) -> Any:
        return getattr(self.attacker, command)(self.address, **arguments)

    def wait_ended(self, *kinds: type, count: int = 1) -> list[Any]:
        """The events of those kinds, once there are ``count`` of them together."""
        with self.recorder._changed:
            enough = self.recorder._changed.wait_for(
                lambda: sum(len(self.recorder.of(kind)) for kind in kinds) >= count, LIMIT
            )
            assert enough, (Counter(self.recorder.names()), self.recorder.of(Failed)[:3])
        return [event for event in self.recorder.events if isinstance(event, kinds)]

    def wait_ends(self, count: int) -> list[Any]:
        """How the connections ended, once ``count`` have."""
        return self.wait_ended(Finished, Failed, Refused, count=count)

    def wait_accepted(self, count: int) -> None:
        self.recorder.wait_for(Accepted, count)

    def reasons(self) -> Counter[str]:
        """Why connections were refused."""
        return Counter(event.reason for event in self.recorder.of(Refused))

    def adds_up(self) -> bool:
        """True if each accepted connection has ended, once."""
        accepted = sorted(event.connection for event in self.recorder.of(Accepted))
        ends = (Finished, Failed, Refused)
        ended = sorted(event.connection for kind in ends for event in self.recorder.of(kind))
        assert self.server._everserve.control.refusals == self.reasons()
        return accepted == ended


def descriptors() -> dict[str, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            pass  # the descriptor of the listing itself
    return found


@pytest.fixture(scope="session")
def attacker() -> Iterator[Attacker]:
    attacker = Attacker()
    yield attacker
    attacker.end()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(params=[pytest.param(s, id=s.name, marks=s.marks) for s in STRATEGIES])
def strategy(request: pytest.FixtureRequest) -> Strategy:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def concurrent(strategy: Strategy) -> Strategy:
    """The strategy, where it runs several requests at a time."""
    if not strategy.is_concurrent:
        pytest.skip("one request at a time")
    return strategy


@pytest.fixture(params=["tcp", "unix"])
def scheme(request: pytest.FixtureRequest) -> str:
    """The transport, for tests that need both."""
    return request.param  # type: ignore[no-any-return]


Besiege = Callable[..., Siege]


@pytest.fixture
def besiege(
    strategy: Strategy, attacker: Attacker, certificates: Certificates, tmp_path: Path
) -> Iterator[Besiege]:
    """Make a server and serve; in the end it must work as before, and leave nothing behind."""
    gc.collect()  # the leftovers of earlier tests do not count
    threads, found = set(threading.enumerate()), descriptors()
    sieges: list[tuple[Any, Siege, list[str]]] = []

    def make(handler: Any = Upper, scheme: str = "tcp", tls: Any = None, **settings: Any) -> Siege:
        if handler is Upper and strategy.name == "asyncio":
            handler = AsyncUpper
        address = f"unix:{tmp_path}/server" if scheme == "unix" else "tcp://127.0.0.1:0"
        settings = strategy.room | settings | ({} if tls is None else {"tls": tls})
        server = make_server(handler, address, concurrency=strategy.name, **settings)
        siege = Siege(server, attacker, {"ca": certificates.authority} if tls else None)
        running = serving(server)
        running.__enter__()
        limits = [name for name in settings if name.endswith(("_timeout", "_rate"))]
        sieges.append((running, siege, limits))
        return siege

    yield make
    attacker._ask({"do": "release"})
    while sieges:
        running, siege, limits = sieges.pop()
        siege.lift_time_limits(*limits)
        hub = getattr(siege.server._everserve.strategy, "_hub", None)
        try:
            assert siege.server.state is ServerState.STOPPED or siege.serves()
            assert siege.order.violations == []
        finally:
            running.__exit__(None, None, None)
        assert siege.server._everserve.life.stop.report.unfinished == ()
        assert siege.adds_up(), siege.recorder.events
        assert not hub or not hub.fibers
        assert not siege.server._everserve.control.handshakes
        assert not siege.server._everserve.control.peers
        del siege, hub, running
    for thread in set(threading.enumerate()) - threads:
        thread.join(LIMIT)
        assert not thread.is_alive(), thread
    if descriptors() != found:
        gc.collect()
    assert descriptors() == found


@contextmanager
def serving(server: Any) -> Iterator[None]:
    with server.running(grace=LIMIT):
        yield


@pytest.fixture
def tls(certificates: Certificates) -> everserve.TLS:
    return everserve.TLS(*certificates.server)


def pair_of(pair: Pair) -> list[str]:
    return [str(path) for path in pair]
