"""The plan anew, at SIGHUP: the command line is read again, with the file of options as it is now.

A template calls it, a process that has not loaded the handlers yet; ``operation`` serves by the plan.
"""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from typing import Any

import click

from everserve.cli.configuration import PLACE
from everserve.cli.helptext import WORDS
from everserve.cli.plan import Plan, prepare
from everserve.errors import OptionError

__all__ = ["Renewal"]

_OF_PROCESS = ("chdir", "umask", "user", "group")
"""What the process has done at its start, and cannot do again."""

_OF_START = (
    *("pid", "reload", "grace", "concurrency", "replace"),
    *("workers", "worker_timeout", "max_requests", "max_memory"),
    *_OF_PROCESS,
)
"""What the supervisor has taken from the options at its start: another value is for the next one."""

_OF_LISTENERS = (
    *("request_queue_size", "allow_reuse_address", "allow_reuse_port", "dual_stack"),
    *("receive_buffer", "broadcast", "multicast_interface", "socket_mode"),
)
"""What belongs to the listeners, which are bound already."""

_OF_RUN = ("pid", "reload", "grace")
"""The parameters of ``run`` that are not those of a plan."""

logger = logging.getLogger("everserve")


class Renewal:
    """Reads the options of the command that runs in ``ctx`` again. ``plan`` is that of its start."""

    def __init__(self, ctx: click.Context, plan: Plan) -> None:
        self._ctx = ctx
        self._plan = plan
        self._first = dict(ctx.params)

    def read(self) -> Plan:
        """The plan as the options are now: the same addresses, perhaps other handlers and settings.

        Raises ``OptionError`` for options that cannot be used, and for other addresses. A file that
        this user cannot read, as the process has given up root, is logged, and changes nothing.
        """
        place = self._ctx.meta[PLACE]
        has_changed_user = self._plan.identity is not None
        if has_changed_user and os.path.exists(place) and not os.access(place, os.R_OK):
            logger.error("options not read anew: this user cannot read %s", place)
            return self._plan
        try:
            return self._read()
        except click.ClickException as error:
            raise OptionError(error.format_message()) from error

    def _read(self) -> Plan:
        ctx = self._ctx
        with ctx.command.make_context(ctx.info_name, list(ctx.meta[WORDS]), ctx) as now:
            given = {name: now.params[name] for name in now.params if name not in _OF_RUN}
            if now.params == self._first:
                return self._plan
            plan = prepare(**(given | dict.fromkeys(_OF_PROCESS)))
        self._refuse_other_addresses(plan)
        self._note_what_stays(now.params)
        return replace(plan, concurrency=self._plan.concurrency, options=self._options(plan, given))

    def _refuse_other_addresses(self, plan: Plan) -> None:
        before, now = ([address for _, address in one.pairs] for one in (self._plan, plan))
        if before != now:
            raise OptionError(
                f"other addresses, {', '.join(now)}: they are bound at the start, so start anew, or"
                " with --replace"
            )

    def _note_what_stays(self, now: dict[str, Any]) -> None:
        names = [name for name in (*_OF_START, *_OF_LISTENERS) if now[name] != self._first[name]]
        if names:
            logger.warning("these options stay until the next start: %s", ", ".join(names))

    def _options(self, plan: Plan, given: dict[str, Any]) -> dict[str, Any]:
        """The settings; a certificate of the same files is that which is loaded."""
        names = [name for name in given if name.startswith("tls_")]
        if "tls" in plan.options and all(given[name] == self._first[name] for name in names):
            return plan.options | {"tls": self._plan.options["tls"]}
        return plan.options
