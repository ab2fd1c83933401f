"""``server.runtime``: the parts of one server, behind the one private attribute of its class."""

from __future__ import annotations

import gc
import threading
import weakref
from types import SimpleNamespace
from typing import Any

from tests.clients import LIMIT, Background
from tests.scenes import LOOPBACK, Echo

from everserve.admission.host import host_of_server
from everserve.combos import FiberTCPServer, ThreadingTCPServer
from everserve.concurrency.fibers import FiberStrategy
from everserve.concurrency.strategy import Strategy
from everserve.concurrency.threads import ThreadStrategy
from everserve.mixins import FiberMixIn, ThreadingMixIn
from everserve.server.runtime import Runtime, RuntimeSlot
from everserve.server.tcp import TCPServer


class Slotted:
    _everserve = RuntimeSlot(Strategy)
    coalesce_writes = False


class Threaded(Slotted):
    _everserve = RuntimeSlot(ThreadStrategy)


def test_it_is_made_once_at_the_first_access() -> None:
    server = Slotted()
    assert vars(server) == {}
    runtime = server._everserve
    assert server._everserve is runtime
    assert vars(server) == {"_everserve": runtime}


def test_threads_that_access_it_at_once_get_the_same() -> None:
    server, together = Slotted(), threading.Barrier(8)

    def ask() -> Runtime:
        together.wait(LIMIT)
        return server._everserve

    assert len({id(thread.result()) for thread in [Background(ask) for _ in range(8)]}) == 1


def test_the_class_determines_the_strategy() -> None:
    assert type(Slotted()._everserve.strategy) is Strategy
    assert type(Threaded()._everserve.strategy) is ThreadStrategy
    assert Threaded._everserve.strategy is ThreadStrategy


def test_the_first_mix_in_counts() -> None:
    class Both(FiberMixIn, ThreadingMixIn, TCPServer):
        pass

    assert Both._everserve.strategy is FiberStrategy
    assert ThreadingTCPServer._everserve.strategy is ThreadStrategy
    assert FiberTCPServer._everserve.strategy is FiberStrategy
    assert TCPServer._everserve.strategy is Strategy


def test_a_server_without_a_base_constructor_has_one_too() -> None:
    server = TCPServer.__new__(TCPServer)
    assert isinstance(server._everserve, Runtime)


def test_the_parts_share_their_objects() -> None:
    runtime = Slotted()._everserve
    assert runtime.conductor.life is runtime.life
    assert runtime.conductor.strategy is runtime.strategy
    request = object()
    connection = runtime.progress.accepted(request, "peer")
    assert runtime.connection_of(request) is connection
    assert runtime.connection_of(object()) is None


def test_the_operations_for_handlers() -> None:
    server: Any = Slotted()
    assert host_of_server(server) is server._everserve
    assert not server._everserve.is_draining()
    assert not server._everserve.coalesces_writes()
    server.coalesce_writes = True
    server._everserve.settings.note_change()
    server._everserve.settings.read()
    assert server._everserve.coalesces_writes()
    assert host_of_server(SimpleNamespace()) is None
    assert host_of_server(SimpleNamespace(_everserve="the program's own")) is None


def test_it_does_not_keep_the_server_alive() -> None:
    gc.disable()
    try:
        server = Slotted()
        assert isinstance(server._everserve, Runtime)
        reference = weakref.ref(server)
        del server
        assert reference() is None
    finally:
        gc.enable()


def test_a_program_sees_one_private_name_on_its_server() -> None:
    with TCPServer(LOOPBACK, Echo) as server:
        assert server._everserve is not None
        private = [name for name in vars(server) if name.startswith("_")]
    assert sorted(private) == ["_BaseServer__is_shut_down", "_everserve"]
