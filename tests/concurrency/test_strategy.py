"""``concurrency.strategy``: one request after the other, and the base of the other strategies."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from tests.clients import LIMIT, Background
from tests.parts import NotedHooks, Parts

from everserve.concurrency.fibers import FiberStrategy
from everserve.concurrency.forks import ForkStrategy
from everserve.concurrency.pool import PoolStrategy
from everserve.concurrency.strategy import Strategy
from everserve.concurrency.threads import ThreadStrategy
from everserve.sockets.counted import CountedSocket

STRATEGIES: list[type[Strategy]] = [
    Strategy, ThreadStrategy, PoolStrategy, ForkStrategy, FiberStrategy
]  # fmt: skip


class Loop:
    """A fake accept loop."""

    def __init__(self) -> None:
        self.descriptors: list[int] = []
        self.has_closed_listeners = False

    def watch(self, descriptor: int) -> None:
        self.descriptors.append(descriptor)

    def unwatch(self, descriptor: int) -> None:
        self.descriptors.remove(descriptor)

    def leave_to_parent(self) -> None:
        self.has_closed_listeners = True


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture(params=STRATEGIES, ids=lambda kind: kind.name)
def parts(request: pytest.FixtureRequest) -> Parts:
    return Parts(request.param)


def test_each_has_its_name() -> None:
    assert [kind.name for kind in STRATEGIES] == ["serial", "threads", "pool", "forks", "fibers"]


def test_a_request_runs_at_once_and_here() -> None:
    threads: list[int] = []
    hooks = NotedHooks(finish_request=lambda *_: threads.append(threading.get_ident()))
    Parts().strategy.start(hooks, object(), "peer")
    assert threads == [threading.get_ident()]
    assert hooks.calls == ["finish_request", "shutdown_request"]


def test_an_error_is_raised_to_the_caller() -> None:
    def fail(*_: Any) -> None:
        raise ValueError

    hooks = NotedHooks(finish_request=fail)
    with pytest.raises(ValueError):
        Parts().strategy.start(hooks, object(), "peer")
    assert hooks.calls == ["finish_request"]


def test_two_threads_have_different_numbers(parts: Parts) -> None:
    here = parts.strategy.here()
    assert here == parts.strategy.here()
    assert Background(parts.strategy.here).result() != here


def test_a_new_strategy_is_not_full_and_needs_no_attention(parts: Parts) -> None:
    strategy = parts.strategy
    assert not strategy.is_full()
    assert not strategy.needs_attention()
    assert strategy.watched() == {}
    strategy.attend()
    assert strategy.take_order() is None
    assert not strategy.relay(None)
    assert not strategy.is_draining()
    strategy.leave()
    strategy.close(wait=True)
    strategy.close(wait=True)


def test_the_first_loop_counts_until_it_is_left(parts: Parts) -> None:
    strategy = parts.strategy
    first, second = Loop(), Loop()
    strategy.attach(first)
    strategy.attach(second)  # handle_request inside of serve_forever
    strategy.detach(second)
    assert strategy._loop is first
    strategy.detach(first)
    assert strategy._loop is None


def test_a_wait_ends_with_a_change(parts: Parts) -> None:
    changed: list[bool] = []
    waiting = Background(parts.strategy.wait_until, lambda: bool(changed))
    changed.append(True)
    parts.life.notifier.notify()
    while waiting.is_alive():  # it may have checked, and not yet begun to wait
        parts.life.notifier.notify()
        waiting.join(0.001)
    assert waiting.result() is True
    assert not parts.strategy.wait_until(lambda: False, lambda: 0.0)


def test_without_requests_there_is_nothing_to_wait_for(parts: Parts) -> None:
    assert parts.strategy.wait_for_requests(lambda: True, lambda: None)


def test_a_cut_shuts_connections_down(
    parts: Parts, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    connection = parts.progress.accepted(ours, "peer")
    assert connection is not None
    parts.strategy.cut(NotedHooks(), (connection,))
    assert theirs.recv(1) == b""
    parts.progress.ended(connection)


def test_it_counts_where_the_kernel_does_not(pair: tuple[socket.socket, socket.socket]) -> None:
    with Parts().strategy.count(pair[0].dup()) as counted:
        assert isinstance(counted, CountedSocket)


# -- each alone --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [ThreadStrategy, PoolStrategy])
def test_a_thread_runs_the_request_and_closing_waits_for_it(kind: type[Strategy]) -> None:
    threads: list[int] = []
    go_on = threading.Event()

    def run(*_: Any) -> None:
        go_on.wait(LIMIT)
        threads.append(threading.get_ident())

    parts, hooks = Parts(kind), NotedHooks(process_request_thread=run)
    parts.strategy.start(hooks, object(), "peer")
    closing = Background(parts.strategy.close, wait=True)
    go_on.set()
    closing.result()
    assert hooks.calls == ["process_request_thread"]
    assert threads != [threading.get_ident()]


def test_a_pool_is_full_at_its_limit_and_grows_with_the_settings() -> None:
    go_on = threading.Event()
    parts = Parts(PoolStrategy, max_workers=1)
    hooks = NotedHooks(process_request_thread=lambda *_: go_on.wait(LIMIT))
    parts.strategy.attach(Loop())
    parts.strategy.start(hooks, object(), "peer")
    assert parts.strategy.is_full()
    parts.settings.values = replace(parts.settings.values, max_workers=2)
    assert not parts.strategy.is_full()
    parts.settings.values = replace(parts.settings.values, max_connections=1)
    assert parts.strategy.is_full()
    go_on.set()
    parts.strategy.close(wait=True)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_runs_the_request_and_the_parent_closes_its_copy(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    parts = Parts(ForkStrategy, max_children=1)
    hooks = NotedHooks(finish_request=lambda request, _: request.sendall(b"%d" % os.getpid()))
    loop = Loop()
    parts.strategy.attach(loop)
    parts.progress.accepted(ours, "peer")
    parts.strategy.start(hooks, ours, "peer")
    assert hooks.calls == ["close_request"]  # the child called the others in its copy
    assert parts.strategy.is_full()
    assert parts.strategy.needs_attention()
    assert set(parts.strategy.watched()) == set(loop.descriptors)
    assert int(theirs.recv(100)) != os.getpid()
    parts.strategy.close(wait=True)
    assert not parts.strategy.is_full()
    assert parts.strategy.watched() == {}
    assert loop.descriptors == []
    assert len(parts.connections) == 0
    assert not loop.has_closed_listeners  # only in the child


def test_fibers_run_while_their_selector_waits() -> None:
    parts = Parts(FiberStrategy)
    hooks = NotedHooks()
    selector = parts.strategy.open_selector(None)
    assert selector is not None
    with selector:
        parts.strategy.start(hooks, object(), "peer")
        assert hooks.calls == []
        selector.select(0)
        assert hooks.calls == ["process_request_thread"]
    parts.strategy.leave()


def test_fibers_of_two_servers_have_one_hub() -> None:
    one, other = Parts(FiberStrategy), Parts(FiberStrategy)
    selector = one.strategy.open_selector(None)
    assert selector is not None
    assert other.strategy.open_selector(selector) is selector
    other.strategy.leave()
    hooks = NotedHooks()
    with selector:
        one.strategy.start(hooks, object(), "peer")  # the hub still exists
        selector.select(0)
    one.strategy.leave()
    assert hooks.calls == ["process_request_thread"]


def test_fibers_without_a_loop_run_at_once() -> None:
    hooks = NotedHooks()
    Parts(FiberStrategy).strategy.start(hooks, object(), "peer")
    assert hooks.calls == ["process_request_thread"]


def test_a_selector_of_another_strategy_is_kept() -> None:
    sentinel: Any = object()
    assert Parts().strategy.open_selector(sentinel) is sentinel
    assert Parts().strategy.open_selector(None) is None
