"""``--reload``, for development: serve in another process, and begin anew when the code changes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress

from everserve.cli.output import say
from everserve.cli.target import split_address
from everserve.errors import OptionError
from everserve.process.signals import STOP_SIGNALS, receiving

__all__ = ["serve_with_reload"]

_PATIENCE = 0.5
"""Seconds between two signals to a server that is to end: the second one cuts."""


def serve_with_reload(targets: Sequence[str], *, folder: str | None = None) -> int:
    """Run the command that runs now, without its ``--reload``, again after each change of a file.

    ``folder`` (default: this one) is watched, and that of each target. A server that ends by itself, as
    its code cannot be loaded, begins anew after the next change. Returns the status of the last one, at
    SIGINT or SIGTERM. Raises ``OptionError`` without the library.
    """
    try:
        import watchfiles  # noqa: PLC0415
    except ModuleNotFoundError:
        raise OptionError("--reload needs watchfiles: pip install 'everserve[reload]'") from None
    server = _Server()
    with receiving(STOP_SIGNALS, server.stop):
        server.start()
        for changes in watchfiles.watch(
            *_folders(targets, os.path.abspath(folder or os.curdir)),
            watch_filter=watchfiles.PythonFilter(extra_extensions=(".toml",)),
            stop_event=server.stopping,
            raise_interrupt=False,
        ):
            names = sorted({os.path.relpath(path) for _, path in changes})
            say(f"changed: {', '.join(names)}: serving anew")
            server.end()
            server.start()
        return server.join()


def _folders(targets: Sequence[str], folder: str) -> set[str]:
    places = (split_address(target)[0].rpartition(":")[0] for target in targets)
    files = (place for place in places if place.endswith(".py"))
    return {folder, *(os.path.dirname(os.path.join(folder, file)) for file in files)}


class _Server:
    """The process that serves."""

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self._words = [word for word in sys.argv[1:] if word != "--reload"]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        # In a group of its own: Ctrl-C is for this process, which passes it on, once.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "everserve", *self._words],
            env=os.environ | {"EVERSERVE_RELOAD": "no"},
            process_group=0,
        )
        if self.stopping.is_set():  # by a signal that came meanwhile
            self._process.terminate()

    def end(self) -> None:
        """End it soon: its connections are cut."""
        while self._process is not None and self._process.poll() is None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_PATIENCE)

    def stop(self, number: signal.Signals) -> None:
        """The handler of a signal: pass it on, and watch no longer."""
        self.stopping.set()
        if self._process is not None:
            self._process.send_signal(number)

    def join(self) -> int:
        """Wait for its end, and return its status."""
        return 0 if self._process is None else self._process.wait()
