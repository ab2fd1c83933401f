"""Run servers until a signal or an error ends them.

``serve`` and ``everserve run`` use it. The calling thread only waits: for signals, for the serving
thread, for the stops. After a signal it always comes to an end; ``ending`` has what follows from that.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any, TypeAlias

from everserve.errors import ServerClosedError, TLSConfigError
from everserve.events import ServerEvent, Serving, Stopped
from everserve.process.ending import leave_behind
from everserve.process.messagequeue import MessageQueue
from everserve.process.servicemanager import ServiceManager
from everserve.process.signals import RELOAD_SIGNAL, STOP_SIGNALS, receiving
from everserve.server.group import ServerGroup
from everserve.server.naming import name_of
from everserve.server.stop import PATIENCE, StopReport

__all__ = ["LONGEST_STOP", "run"]

_LAST_TURN = 1.0
"""Seconds after the stop in which the serving thread is to end: it may kill some fibers yet."""

LONGEST_STOP = PATIENCE + _LAST_TURN
"""Seconds beyond the grace after which a stop has come to its end, whatever a handler does."""

_LAST_STEP = 0.1
"""Seconds in which idle workers end, where others are left that do not."""

logger = logging.getLogger("everserve")


def run(
    group: ServerGroup[Any],
    *,
    grace: float = 5.0,
    on_ready: Callable[[], object] = lambda: None,
    on_signal: Callable[[signal.Signals], object] = lambda number: None,
    stop_signals: Sequence[signal.Signals] = STOP_SIGNALS,
    further_signals: Sequence[signal.Signals] = (),
) -> StopReport:
    """Serve with all servers of ``group`` until SIGINT or SIGTERM, or until they have all ended.

    The first signal stops them with ``grace`` seconds, a second one cuts. ``on_ready()`` is called when
    all serve, ``on_signal(signal)`` at each signal. Returns the sum of the stop reports. An error that
    ends the loop, or that one of the two raises, stops all servers, and is raised at the end. At
    SIGHUP, servers with TLS reload their certificates, unless it is one of ``further_signals``, which
    are for ``on_signal`` alone. ``stop_signals`` are SIGINT and SIGTERM, if none are given. Signals are
    received in the main thread only.
    A service manager that waits for notice of all that (sd_notify(3)) gets it.

    A handler that does not end does not keep this from returning: the log has its stack, the report
    says that it is left, and the process will end with status 1.
    """
    runner = _Runner(group, grace, on_ready, on_signal)
    reloads = RELOAD_SIGNAL is not None and RELOAD_SIGNAL not in further_signals and group.has_tls()
    runner.reload_signal = RELOAD_SIGNAL if reloads else None
    runner.stop_signals = stop_signals
    numbers = [*stop_signals, *further_signals]
    if RELOAD_SIGNAL is not None and reloads:
        numbers.append(RELOAD_SIGNAL)
    with receiving(numbers, runner.messages.put):
        return runner.run()


@dataclass(frozen=True)
class _Served:
    """The message that the serving thread has ended, perhaps with an error."""

    error: BaseException | None = None


@dataclass(frozen=True)
class _Reported:
    """The message that a stop has ended, with its report or an error."""

    report: StopReport | None = None
    error: BaseException | None = None


_Message: TypeAlias = signal.Signals | ServerEvent | _Served | _Reported


class _Runner:
    """The threads of one ``run``, and the queue of their messages and of the signals.

    None of what it waits for is sure to come: a handler may never end, and hold the serving thread. So
    once a stop has begun, every wait has a limit, which a further signal shortens.
    """

    def __init__(
        self,
        group: ServerGroup[Any],
        grace: float,
        on_ready: Callable[[], object],
        on_signal: Callable[[signal.Signals], object],
    ) -> None:
        self.messages: MessageQueue[_Message] = MessageQueue()
        self.reload_signal: signal.Signals | None = None
        self.stop_signals: Sequence[signal.Signals] = ()
        self._group = group
        self._grace = grace
        self._on_ready = on_ready
        self._on_signal = on_signal
        self._thread = threading.Thread(target=self._serve, name="everserve-serving", daemon=True)
        self._ready = self._stopped = self._signals = 0
        self._stops = 0  # how many were begun
        self._reports: list[StopReport | None] = []
        self._deadline: float | None = None
        self._error: BaseException | None = None
        self._manager = ServiceManager()

    def run(self) -> StopReport:
        self._group.subscribe(self._pass_on)
        self._thread.start()
        while self._thread.is_alive() or not self._is_reported():
            message = self.messages.get(self._next_deadline())
            if self._manager.is_due():
                self._keep_alive()
            if message is None and self._is_late():
                break
            try:
                if message is not None:
                    self._act(message)
            except BaseException as error:  # of on_ready or on_signal: the servers end first
                self._fail(error)
        return self._end()

    def _next_deadline(self) -> float | None:
        times = [time for time in (self._deadline, self._manager.next_time) if time is not None]
        return min(times, default=None)

    def _is_late(self) -> bool:
        return self._deadline is not None and monotonic() >= self._deadline

    def _keep_alive(self) -> None:
        """Tell the service manager that all is well, unless the accept loop is held.

        Once a stop has begun every wait has a limit, and the loop ends.
        """
        self._manager.keep_alive(self._stops > 0 or self._group.is_turning())

    def _is_reported(self) -> bool:
        return 0 < self._stops == len(self._reports)

    def _act(self, message: _Message) -> None:
        match message:
            case signal.Signals():
                self._obey(message)
            case Serving():
                self._ready += 1
                if self._ready == len(self._group.servers):
                    self._on_ready()
                    self._manager.ready(self._names())
            case Stopped():
                self._stopped += 1
                if self._stopped == len(self._group.servers):
                    self._stop_once()
            case _Served():
                self._thread.join()
                is_early = self._stops > 0 and isinstance(message.error, ServerClosedError)
                self._fail(None if is_early else message.error)  # stopped as it was to begin
            case _Reported():
                self._note(message)

    def _obey(self, number: signal.Signals) -> None:
        try:
            self._on_signal(number)
        finally:
            if number is self.reload_signal:
                self._reload()
            elif number in self.stop_signals:
                self._signals += 1
                if self._is_reported():
                    self._deadline = monotonic()  # nothing is left to cut: end now
                else:
                    self._stop(self._grace if self._signals == 1 else 0.0)

    def _fail(self, error: BaseException | None) -> None:
        """Stop, as the run has ended, perhaps by an error, which is raised at the end."""
        self._error = self._error or error
        self._stop_once()

    def _stop_once(self) -> None:
        if not self._stops:
            self._stop(self._grace)

    def _stop(self, grace: float) -> None:
        self._stops += 1
        self._manager.stopping(grace + LONGEST_STOP)
        self._deadline = monotonic() + grace + PATIENCE
        threading.Thread(target=self._stop_with, args=(grace,), daemon=True).start()

    def _note(self, message: _Reported) -> None:
        self._reports.append(message.report)
        self._error = self._error or message.error
        if self._is_reported():
            self._deadline = monotonic() + _LAST_TURN

    def _reload(self) -> None:
        self._manager.reloading()
        try:
            self._group.reload_tls()
            logger.info("certificates renewed")
            self._manager.ready(self._names())
        except TLSConfigError as error:
            logger.error("certificates not renewed, the old ones stay: %s", error)
            self._manager.ready(f"{self._names()}; certificates not renewed: {error}")

    def _names(self) -> str:
        return f"serving {', '.join(name_of(server) for server in self._group.servers)}"

    # -- the end ---------------------------------------------------------------------------------

    def _end(self) -> StopReport:
        report = self._report()
        leave_behind(self._left(report))
        if self._error is not None:
            raise self._error
        return report

    def _report(self) -> StopReport:
        """The last report, and never one that says more than is known."""
        reports = [report for report in self._reports if report is not None]
        if not self._is_reported() or not reports:
            return StopReport(unfinished=self._group.connections(), complete=False)
        report = next((report for report in reports if report.complete), reports[-1])
        return replace(report, complete=report.complete and not self._thread.is_alive())

    def _left(self, report: StopReport) -> list[threading.Thread]:
        """The threads that keep the process from its end, or must not see it."""
        threads = [self._thread, *self._group.request_threads()]
        if report.complete and not report.unfinished:
            threads = [thread for thread in threads if not thread.daemon]
        end = monotonic() + _LAST_STEP
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, end - monotonic()))
        return [thread for thread in threads if thread.is_alive()]

    # -- in other threads ------------------------------------------------------------------------

    def _pass_on(self, event: ServerEvent) -> None:
        if isinstance(event, Serving | Stopped):
            self.messages.put(event)

    def _serve(self) -> None:
        error: BaseException | None = None
        try:
            self._group.serve_forever()
        except BaseException as raised:
            error = raised
        self.messages.put(_Served(error))

    def _stop_with(self, grace: float) -> None:
        try:
            self.messages.put(_Reported(self._group.stop(grace)))
        except BaseException as error:
            self.messages.put(_Reported(error=error))
