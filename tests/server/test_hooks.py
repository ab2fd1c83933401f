"""``server.hooks``: whether a hook is the default, or overridden by a program."""

from __future__ import annotations

import http.server
import socketserver
from typing import Any

import pytest
from tests.scenes import LOOPBACK, Echo

from everserve.combos import ForkingTCPServer
from everserve.server.base import BaseServer
from everserve.server.hooks import default_hook, is_default
from everserve.server.tcp import TCPServer
from everserve.server.udp import UDPServer


class Base:
    @default_hook
    def hook(self) -> str:
        return "default"


class Inherits(Base):
    pass


class Overrides(Base):
    def hook(self) -> str:
        return super().hook()


def test_a_marked_hook_is_the_default_and_unchanged() -> None:
    assert Base().hook() == "default"
    assert is_default(Base().hook)
    assert is_default(Inherits().hook)


def test_an_overridden_hook_is_not_the_default() -> None:
    assert not is_default(Overrides().hook)
    one = Base()
    one.hook = lambda: "own"  # type: ignore[method-assign]
    assert not is_default(one.hook)


@pytest.mark.parametrize("other", [None, len, "text", Base.hook])
def test_an_object_that_is_not_a_bound_method_is_not(other: Any) -> None:
    assert not is_default(other)


def test_the_defaults_of_the_servers() -> None:
    base = BaseServer("nowhere", Echo)
    assert is_default(base.service_actions)
    assert not is_default(base.get_request)
    for kind in (TCPServer, UDPServer):
        with kind(LOOPBACK, Echo) as server:
            assert is_default(server.get_request)


def test_forks_collect_by_a_default() -> None:
    with ForkingTCPServer(LOOPBACK, Echo) as server:
        assert is_default(server.service_actions)


@pytest.mark.parametrize("kind", [socketserver.TCPServer, http.server.HTTPServer])
def test_hooks_of_the_standard_library_count_as_overridden(kind: Any) -> None:
    with kind(LOOPBACK, Echo) as server:
        assert not is_default(server.get_request)
        assert not is_default(server.service_actions)
