"""The servers of ``make_server`` as they come, without an option: what attacks may cost."""

from __future__ import annotations

import resource
import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import pytest
from tests.clients import LIMIT
from tests.hostile.conftest import Besiege, Siege, Strategy, descriptors

from everserve import defaults
from everserve.admission import control
from everserve.server.acceptor import BATCH
from everserve.sockets.tls import TLS

PLACES = 300
"""What ``max_connections`` comes to where the process may have 375 descriptors."""

HANDSHAKES = 40


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bounds, for a process with few descriptors."""
    monkeypatch.setattr(defaults, "raise_limit", lambda: int(PLACES / defaults.SHARE))
    monkeypatch.setattr(defaults, "STREAMS", {**defaults.STREAMS, "max_handshakes": HANDSHAKES})


def memory() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def cost_of(attack: Callable[[], object]) -> tuple[int, int, int]:
    """The memory, threads and descriptors that an attack costs while it goes on."""
    before = memory(), threading.active_count(), len(descriptors())
    attack()
    after = memory(), threading.active_count(), len(descriptors())
    memory_cost, threads, opened = (b - a for a, b in zip(before, after, strict=True))
    return memory_cost, threads, opened


def hold_many(siege: Siege, count: int) -> None:
    for _ in range(count // 50):
        siege.attack("hold", count=50)


@pytest.mark.parametrize("clients", [1, 1000])
def test_silent_connections(besiege: Besiege, strategy: Strategy, clients: int) -> None:
    if strategy.name not in ("fibers", "threads"):
        pytest.skip("the others are bounded by their workers, and wait")
    siege = besiege()
    cost, threads, opened = cost_of(lambda: hold_many(siege, max(50, clients)))
    assert cost < 60 << 20
    assert threads <= PLACES + 5
    assert opened <= PLACES + BATCH + 10
    if clients > PLACES:
        assert siege.reasons().keys() <= {"max_connections"}
        siege.attacker.release()
        siege.wait_ends(clients)
    assert siege.serves()


def test_half_open_handshakes(
    besiege: Besiege, concurrent: Strategy, tls: TLS, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "LONGEST_AWAITED", 0.0)  # a pool, and forks, wait
    count = 100 if concurrent.name == "forks" else 1000
    siege = besiege(tls=tls)
    cost, threads, opened = cost_of(lambda: hold_many(siege, count))
    siege.wait_accepted(count)
    server = siege.server
    # Those that were cut take a moment to end; the others are held.
    assert server._everserve.life.notifier.wait_until(
        lambda: len(server.connections) <= HANDSHAKES, lambda: monotonic() + LIMIT
    )
    assert siege.serves()
    assert siege.server._everserve.control.handshakes <= HANDSHAKES
    assert cost < 60 << 20
    assert threads <= PLACES + 5
    assert opened <= 2 * (PLACES + BATCH) + 10  # a connection that is being cut may have two
    siege.attacker.release()
    siege.wait_ends(count + 1)


def test_a_line_without_an_end(besiege: Besiege, strategy: Strategy) -> None:
    siege = besiege()
    cost, _, _ = cost_of(lambda: siege.attack("exchange", payload=b"x" * 70_000, end=False))
    assert cost < 20 << 20
    siege.wait_ends(1)
    assert siege.serves()
