"""Trials of handlers that have attributes of their own."""

from __future__ import annotations

import os
import select
from pathlib import Path
from typing import Any

from tests.collisions.kinds import (
    ANSWER,
    Kind,
    assign,
    before_init,
    in_class,
    lost,
    reply_error,
    upper,
)

BASES = ("plain", "files")
"""A handler without files, or with ``rfile`` and ``wfile``."""


def after_setup(base: Any, attributes: dict[str, Any]) -> Any:
    class Handler(base):  # type: ignore[misc]
        def setup(self) -> None:
            super().setup()
            assign(self, attributes)

    return Handler


HANDLER_PLACES = {
    "in the class": in_class,
    "before init": before_init,
    "after setup": after_setup,
}


class Notes:
    """The reports of handlers at their end, from any process."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()

    def add(self, text: str) -> None:
        os.write(self._writer, f"{text}\n".encode())

    def read(self, limit: float) -> str:
        """The added text; empty if none was added in time."""
        if not select.select([self._reader], [], [], limit)[0]:
            return ""
        return os.read(self._reader, 65536).decode().strip()

    def close(self) -> None:
        os.close(self._reader)
        os.close(self._writer)


def handler_trial(
    kind: Kind,
    folder: Path,
    base: str,
    place: str,
    attributes: dict[str, Any],
    notes: Notes,
    limit: float,
) -> str | None:
    """Handle one request with a handler's own ``attributes``. Returns the problem, if there is one."""
    handler = HANDLER_PLACES[place](_reporting(kind, base, attributes, notes), attributes)
    notes.read(0)  # of a trial that failed
    program = type("Program", (kind.server_class,), {"handle_error": reply_error})
    try:
        with program(kind.address(folder), handler) as server:
            with kind.serving(server, limit):
                answer = kind.ask(server, folder, limit)
                note = notes.read(limit) if answer == ANSWER else ""
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    if answer != ANSWER:
        return f"the answer is {answer!r}"
    return None if note == "lost:" else f"at the end of the handler: {note or 'nothing'}"


def _reporting(kind: Kind, base: str, attributes: dict[str, Any], notes: Notes) -> Any:
    """A handler class that reports at its end the attributes that the program has lost."""

    class Reporting(_base(kind, base)):  # type: ignore[misc]
        def handle(self) -> None:
            if base == "plain":
                upper(self)
            else:
                self.wfile.write(self.rfile.readline().upper())

        def finish(self) -> None:
            super().finish()
            notes.add(" ".join(["lost:", *lost(self, attributes)]))

    return Reporting


def _base(kind: Kind, base: str) -> Any:
    if base == "plain":
        return kind.module.BaseRequestHandler
    return getattr(
        kind.module, "StreamRequestHandler" if kind.is_stream else "DatagramRequestHandler"
    )
