"""Run servers until a signal, or one of them, ends it.

``serve`` and ``everserve run`` stand on it. The calling thread only waits, for signals and for the
threads that serve.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from everserve.errors import TLSConfigError
from everserve.events import Serving
from everserve.process.inbox import Inbox
from everserve.process.signals import RELOAD_SIGNAL, STOP_SIGNALS, receiving
from everserve.reading import option
from everserve.server.base import BaseServer
from everserve.server.stopping import StopReport

if TYPE_CHECKING:
    from everserve.events import Event

__all__ = ["run"]

logger = logging.getLogger("everserve")


def run(
    servers: Sequence[BaseServer],
    *,
    grace: float = 5.0,
    on_ready: Callable[[], object] = lambda: None,
    on_signal: Callable[[signal.Signals], object] = lambda number: None,
) -> StopReport:
    """Serve with all of ``servers`` until SIGINT or SIGTERM, or until they have all ended.

    The first signal stops them with ``grace`` seconds, a second one cuts. ``on_ready()`` is called when
    all serve, ``on_signal(signal)`` at each signal. Returns what ``stop`` reports, summed up. An error
    that ends one server stops the others and is raised at the end. SIGHUP has servers with TLS read
    their certificates anew. Signals are received in the main thread only.
    """
    runner = _Runner(servers, grace)
    reload = [RELOAD_SIGNAL] if RELOAD_SIGNAL and any(map(_has_tls, servers)) else []
    with receiving([*STOP_SIGNALS, *reload], runner.inbox.put):
        return runner.run(on_ready, on_signal)


@dataclass(frozen=True)
class _Ended:
    """A serving thread has ended, perhaps by an error."""

    error: BaseException | None


class _Runner:
    """The threads of one ``run``, and the inbox through which they and the signals speak to it."""

    def __init__(self, servers: Sequence[BaseServer], grace: float) -> None:
        self.inbox: Inbox[signal.Signals | Event | _Ended] = Inbox()
        self._servers = servers
        self._grace = grace
        self._serving = len(servers)
        self._ready = 0
        self._signals = 0
        self._stoppers: list[threading.Thread] = []
        self._reports: dict[int, StopReport] = {}
        self._error: BaseException | None = None

    def run(
        self, on_ready: Callable[[], object], on_signal: Callable[[signal.Signals], object]
    ) -> StopReport:
        for server in self._servers:
            BaseServer.subscribe(server, self._pass_on)  # a subclass may have its own
            threading.Thread(target=self._serve, args=(server,), daemon=True).start()
        while self._serving:
            message = self.inbox.get()
            if message is RELOAD_SIGNAL:
                on_signal(message)
                self._reload()
            elif isinstance(message, signal.Signals):
                on_signal(message)
                self._signals += 1
                self._stop_all(self._grace if self._signals == 1 else 0.0)
            elif isinstance(message, _Ended):
                self._note_end(message)
            else:
                self._ready += 1
                if self._ready == len(self._servers):
                    on_ready()
        return self._finish(on_signal)

    def _finish(self, on_signal: Callable[[signal.Signals], object]) -> StopReport:
        """Complete every stop, still listening to signals that would shorten it."""
        self._stop_all(self._grace)
        finished = threading.Thread(target=self._join_stoppers, daemon=True)
        finished.start()
        while not isinstance(message := self.inbox.get(), _Ended):
            if isinstance(message, signal.Signals) and message is not RELOAD_SIGNAL:
                on_signal(message)
                self._signals += 1
                if self._signals > 1:
                    self._stop_all(0.0)
        if self._error is not None:
            raise self._error
        return _sum(tuple(self._reports.values()))

    def _reload(self) -> None:
        for server in {
            id(server.tls): server for server in self._servers if _has_tls(server)
        }.values():
            try:
                BaseServer.reload_tls(server)
                logger.info("certificates renewed")
            except TLSConfigError as error:
                logger.error("certificates not renewed, the old ones stay: %s", error)

    def _join_stoppers(self) -> None:
        for thread in self._stoppers:
            thread.join()
        self.inbox.put(_Ended(None))

    def _pass_on(self, event: Event) -> None:
        if isinstance(event, Serving):
            self.inbox.put(event)

    def _serve(self, server: BaseServer) -> None:
        error: BaseException | None = None
        try:
            server.serve_forever()
        except BaseException as raised:
            error = raised
        self.inbox.put(_Ended(error))

    def _note_end(self, ended: _Ended) -> None:
        self._serving -= 1
        if ended.error is not None and self._error is None:
            self._error = ended.error
            self._stop_all(self._grace)

    def _stop_all(self, grace: float) -> None:
        for server in self._servers:
            thread = threading.Thread(target=self._stop, args=(server, grace), daemon=True)
            thread.start()
            self._stoppers.append(thread)

    def _stop(self, server: BaseServer, grace: float) -> None:
        self._reports[id(server)] = BaseServer.stop(server, grace)


def _has_tls(server: BaseServer) -> bool:
    return bool(option(server.tls))


def _sum(reports: Sequence[StopReport]) -> StopReport:
    return StopReport(
        finished=sum(report.finished for report in reports),
        cut=tuple(connection for report in reports for connection in report.cut),
        unfinished=tuple(connection for report in reports for connection in report.unfinished),
        seconds=max((report.seconds for report in reports), default=0.0),
    )
