"""Serving by a plan: in this process, or by workers under a supervisor."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import click

from everserve.addresses import Address
from everserve.cli.output import complain
from everserve.cli.plan import Plan, places_of
from everserve.cli.renewal import Renewal
from everserve.cli.reporting import (
    report_ready,
    report_signal,
    report_signal_to_supervisor,
    version_text,
)
from everserve.cli.target import find_handler
from everserve.defaults import explain_shortage
from everserve.errors import TLSConfigError
from everserve.handlers.base import BaseRequestHandler
from everserve.observe.logs import log_events
from everserve.process.handover import Control, Predecessor
from everserve.process.identity import Identity
from everserve.process.pidfile import PidFile
from everserve.process.run import run as run_servers
from everserve.process.shares import check_shares
from everserve.process.supervisor import Supervisor
from everserve.process.workforce import Workforce
from everserve.server.group import ServerGroup
from everserve.server.stop import StopReport
from everserve.server.tcp import TCPServer
from everserve.serving import bind_group, located, make_group

__all__ = ["serve_by_workers", "serve_here"]


def serve_here(plan: Plan, grace: float, pid: str | None) -> StopReport:
    """Serve in this process. Where it becomes another user, it loads the handlers after that."""
    if plan.identity is None:
        handlers, places = places_of(plan.pairs, find_handler)
        bound = make_group(handlers, *places, concurrency=plan.concurrency, **plan.options)
    else:
        service = _Service(plan)
        bound = service.bind(None)
    with bound, _pid_file(pid, plan):
        addresses = _addresses_of(bound)  # now: a signal may stop the servers as they begin
        shortage = explain_shortage(bound.servers)
        version = version_text()  # now: the user may not be allowed to read it
        _become(plan.identity, addresses)
        group = bound if plan.identity is None else service.make_over(bound, plan)
        with group:
            log_events(group)
            return run_servers(
                group,
                grace=grace,
                on_ready=lambda: report_ready(version, addresses, shortage=shortage),
                on_signal=report_signal,
            )


def serve_by_workers(plan: Plan, workforce: Workforce, grace: float, pid: str | None) -> StopReport:
    """Serve by workers. They load the handlers: this process binds without them."""
    texts = [address for _, address in plan.pairs]
    predecessor = Predecessor.find(texts) if plan.replaces else None
    service = _Service(plan)
    renewal = Renewal(click.get_current_context(), plan)
    with service.bind(predecessor) as group, _pid_file(pid, plan):
        control = (
            Control.open(texts) if predecessor is None else Control(predecessor.control, texts)
        )
        addresses = _addresses_of(group)
        version = version_text()
        _become(plan.identity, addresses)

        def report() -> None:
            service.renewal = renewal
            report_ready(version, addresses, workers=workforce.workers)

        return Supervisor(
            group,
            workforce,
            grace=grace,
            prepare=service.load,
            on_ready=report,
            on_signal=report_signal_to_supervisor,
            control=control,
            predecessor=predecessor,
        ).run()


class _Service:
    """The servers of a plan: bound at the start, and made over these sockets once the code is loaded.

    That is in each template, or in this process when it is another user.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.renewal: Renewal | None = (
            None  # once it has served: until then the options are as read
        )
        # Now: what a service manager passes is for this process alone.
        self._places = [_sockets_of(address) for _, address in plan.pairs]

    def bind(self, predecessor: Predecessor | None) -> ServerGroup[TCPServer]:
        """The servers, without handlers, over the listeners of the supervisor that they replace.

        They run nothing, so they have no executor, which only suits handlers of messages.
        """
        find = _find_none if predecessor is None else predecessor.take
        options = {name: value for name, value in self._plan.options.items() if name != "executor"}
        return self._make(replace(self._plan, options=options), _no_handler, find)

    def load(self, bound: ServerGroup[TCPServer]) -> ServerGroup[TCPServer]:
        """In a template: the servers with their handlers, by the options as they are now."""
        plan = self._plan if self.renewal is None else self.renewal.read()
        group = self.make_over(bound, plan)
        if plan.workforce is not None:
            check_shares(group.servers, plan.workforce.workers)
        _reload_certificates(group, plan.identity)
        log_events(group)
        return group

    def make_over(self, bound: ServerGroup[TCPServer], plan: Plan) -> ServerGroup[TCPServer]:
        """The servers with their handlers, over the sockets of those that were bound."""
        sockets = iter([server.socket for server in bound.servers])
        return self._make(plan, find_handler, lambda place: next(sockets))

    def _make(
        self,
        plan: Plan,
        handler_of: Callable[[str], Any],
        find: Callable[[Address], socket.socket | None],
    ) -> ServerGroup[TCPServer]:
        pairs = [
            (target, place)
            for (target, _), places in zip(plan.pairs, self._places, strict=True)
            for place in places
        ]
        handlers, places = places_of(pairs, handler_of)
        options: Any = plan.options
        return bind_group(handlers, places, plan.concurrency, options, find)


def _find_none(place: Address) -> None:
    """No other process has bound it."""


def _no_handler(target: str) -> Any:
    """In place of a handler that is loaded later."""
    return BaseRequestHandler


def _reload_certificates(group: ServerGroup[TCPServer], identity: Identity | None) -> None:
    """Take renewed ones; those that only root may read stay as they are."""
    try:
        group.reload_tls()
    except TLSConfigError as error:
        if identity is None:
            raise
        logging.getLogger("everserve").error("certificates not renewed: %s", error)


def _sockets_of(address: str) -> list[str]:
    return [str(place) for place in located(Address.parse(address))]


@contextmanager
def _pid_file(path: str | None, plan: Plan) -> Iterator[None]:
    if path is None:
        yield
        return
    try:
        file = PidFile(path, replaces=plan.replaces)
    except OSError as error:
        raise click.ClickException(f"--pid {path}: {error.strerror}") from error
    try:
        if plan.identity is not None:
            plan.identity.give([file.path])
        yield
    finally:
        file.remove()


def _become(identity: Identity | None, addresses: list[Address]) -> None:
    """Give the socket files away, and root up."""
    if identity is not None:
        identity.give(a.path for a in addresses if a.is_unix and not a.path.startswith("\0"))
        identity.assume()
        unreadable = next((f for f in (os.__file__, __file__) if not os.access(f, os.R_OK)), None)
        if unreadable is not None:
            complain(f"this user cannot read {unreadable}: what is imported from now on fails")


def _addresses_of(group: ServerGroup[TCPServer]) -> list[Address]:
    addresses = []
    for server in group.servers:
        address = Address.of(server.socket)
        if server.tls is not None and server.implicit_tls and address.scheme == "tcp":
            address = replace(address, scheme="tls")
        addresses.append(address)
    return addresses
