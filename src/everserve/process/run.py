"""Run servers until a signal or an error ends them.

``serve`` and ``everserve run`` use it. The calling thread only waits for signals and for the serving
thread.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from everserve.errors import TLSConfigError
from everserve.events import ServerEvent, Serving
from everserve.process.inbox import Inbox
from everserve.process.signals import RELOAD_SIGNAL, STOP_SIGNALS, receiving
from everserve.server.group import ServerGroup
from everserve.server.stop import StopReport

__all__ = ["run"]

logger = logging.getLogger("everserve")


def run(
    group: ServerGroup[Any],
    *,
    grace: float = 5.0,
    on_ready: Callable[[], object] = lambda: None,
    on_signal: Callable[[signal.Signals], object] = lambda number: None,
) -> StopReport:
    """Serve with all servers of ``group`` until SIGINT or SIGTERM, or until they have all ended.

    The first signal stops them with ``grace`` seconds, a second one cuts. ``on_ready()`` is called when
    all serve, ``on_signal(signal)`` at each signal. Returns the sum of the stop reports. An error that
    ends the loop stops all servers, and is raised at the end. At SIGHUP, servers with TLS reload their
    certificates. Signals are received in the main thread only.
    """
    runner = _Runner(group, grace)
    reload = [RELOAD_SIGNAL] if RELOAD_SIGNAL and group.has_tls() else []
    with receiving([*STOP_SIGNALS, *reload], runner.inbox.put):
        return runner.run(on_ready, on_signal)


@dataclass(frozen=True)
class _Ended:
    """The message that the serving thread, or the stop, has ended, perhaps with an error."""

    error: BaseException | None = None


class _Runner:
    """The threads of one ``run``, and the inbox for their messages and the signals."""

    def __init__(self, group: ServerGroup[Any], grace: float) -> None:
        self.inbox: Inbox[signal.Signals | ServerEvent | _Ended] = Inbox()
        self._group = group
        self._grace = grace
        self._ready = 0
        self._signals = 0
        self._stoppers: list[threading.Thread] = []
        self._reports: list[StopReport] = []
        self._error: BaseException | None = None

    def run(
        self, on_ready: Callable[[], object], on_signal: Callable[[signal.Signals], object]
    ) -> StopReport:
        self._group.subscribe(self._pass_on)
        threading.Thread(target=self._serve, daemon=True).start()
        while not isinstance(message := self.inbox.get(), _Ended):
            if message is RELOAD_SIGNAL:
                on_signal(message)
                self._reload()
            elif isinstance(message, signal.Signals):
                on_signal(message)
                self._signals += 1
                self._stop(self._grace if self._signals == 1 else 0.0)
            else:
                self._ready += 1
                if self._ready == len(self._group.servers):
                    on_ready()
        self._error = message.error
        return self._finish(on_signal)

    def _finish(self, on_signal: Callable[[signal.Signals], object]) -> StopReport:
        """Complete the stop; a further signal still shortens it."""
        self._stop(self._grace)
        threading.Thread(target=self._join_stoppers, daemon=True).start()
        while not isinstance(message := self.inbox.get(), _Ended):
            if isinstance(message, signal.Signals) and message is not RELOAD_SIGNAL:
                on_signal(message)
                self._signals += 1
                if self._signals > 1:
                    self._stop(0.0)
        if self._error is not None:
            raise self._error
        return self._reports[-1]

    def _reload(self) -> None:
        try:
            self._group.reload_tls()
            logger.info("certificates renewed")
        except TLSConfigError as error:
            logger.error("certificates not renewed, the old ones stay: %s", error)

    def _join_stoppers(self) -> None:
        for thread in self._stoppers:
            thread.join()
        self.inbox.put(_Ended())

    def _pass_on(self, event: ServerEvent) -> None:
        if isinstance(event, Serving):
            self.inbox.put(event)

    def _serve(self) -> None:
        error: BaseException | None = None
        try:
            self._group.serve_forever()
        except BaseException as raised:
            error = raised
        self.inbox.put(_Ended(error))

    def _stop(self, grace: float) -> None:
        thread = threading.Thread(target=self._stop_with, args=(grace,), daemon=True)
        thread.start()
        self._stoppers.append(thread)

    def _stop_with(self, grace: float) -> None:
        self._reports.append(self._group.stop(grace))
