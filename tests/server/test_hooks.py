"""``server.hooks``: whether a hook is the default, or a program's own."""

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


def test_a_marked_hook_is_the_default_and_what_it_was() -> None:
    assert Base().hook() == "default"
    assert is_default(Base().hook)
    assert is_default(Inherits().hook)


def test_one_that_a_class_or_an_instance_overrides_is_not() -> None:
    assert not is_default(Overrides().hook)
    one = Base()
    one.hook = lambda: "own"  # type: ignore[method-assign]
    assert not is_default(one.hook)


@pytest.mark.parametrize("other", [None, len, "text", Base.hook])
def test_what_is_no_bound_method_is_not(other: Any) -> None:
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
def test_the_standard_librarys_are_overridden_as_far_as_is_known(kind: Any) -> None:
    with kind(LOOPBACK, Echo) as server:
        assert not is_default(server.get_request)
        assert not is_default(server.service_actions)
