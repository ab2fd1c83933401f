"""The supervisor: it has workers serve over its listeners, and replaces those that end.

``serve(workers=...)`` and ``everserve run --workers`` use it. It runs no handler and loads no code of
handlers: it forks a template, which does, and which forks the workers. It waits for signals, for
messages of these processes, and for their ends.
"""

from __future__ import annotations

import faulthandler
import heapq
import itertools
import logging
import os
import selectors
import signal
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from time import monotonic
from typing import Any

from everserve.errors import WorkerError
from everserve.process.channel import Channel, Closed
from everserve.process.handover import Control, Predecessor
from everserve.process.logfiles import reopen_log_files
from everserve.process.orders import (
    Accepting,
    Adopt,
    Beat,
    Born,
    Ended,
    Failed,
    Fork,
    Happened,
    Move,
    Order,
    Ready,
    Reopen,
    Reported,
    Share,
    Stop,
    Suspend,
    Told,
)
from everserve.process.processes import TemplateProcess, WorkerProcess
from everserve.process.servicemanager import ServiceManager, leave_to_parent
from everserve.process.shares import check_shares, most_workers
from everserve.process.signals import STOP_SIGNALS, known, receiving
from everserve.process.template import Plan, Prepare, fork_template
from everserve.process.whole import Whole
from everserve.process.workforce import Workforce
from everserve.server.balance import PLACES, Board
from everserve.server.group import ServerGroup
from everserve.server.naming import name_of
from everserve.server.stop import LAST_WAIT, PATIENCE, StopReport, sum_of
from everserve.sockets.listening import forks
from everserve.sockets.wakeup import Wakeup

__all__ = ["SIGNALS", "Supervisor"]

SIGNALS = (
    *STOP_SIGNALS,
    *known("SIGQUIT", "SIGHUP", "SIGTTIN", "SIGTTOU", "SIGUSR1", "SIGUSR2"),
)
"""The signals that a supervisor acts on."""

_ATTEMPTS = 3
"""Workers that may end before one of their template has accepted: then none can start."""

_YOUNG = 1.0
"""Seconds of life below which a worker is replaced later, and not at once."""

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 10.0
"""Seconds before the replacement of a worker that died young; doubled each time."""

_DUMP_TIME = 0.5
"""Seconds that a worker that stalls has to dump its stacks."""

_LAST_TIME = 1.0
"""Seconds that the templates have to end after the last worker."""

logger = logging.getLogger("everserve")


class Supervisor:
    """The servers of ``group``, served by workers.

    ``prepare(group)`` is called in a template, a process of its own, each time that the code is read:
    at the start and at each SIGHUP. It may return other servers, in the same order over the same
    listeners. The group is bound, and is not served in this process. ``control``
    is where another supervisor can ask for its listeners; ``predecessor`` has given this one its own.
    """

    def __init__(
        self,
        group: ServerGroup[Any],
        workforce: Workforce,
        *,
        grace: float = 5.0,
        prepare: Prepare = lambda group: None,
        on_ready: Callable[[], object] = lambda: None,
        on_signal: Callable[[signal.Signals], object] = lambda number: None,
        control: Control | None = None,
        predecessor: Predecessor | None = None,
    ) -> None:
        check_shares(group.servers, workforce.workers)
        self._group = group
        self._workforce = workforce
        self._wanted = workforce.workers
        self._grace = grace
        self._on_ready = on_ready
        self._on_signal = on_signal
        self._control = control
        self._predecessor = predecessor
        self._boards = [Board() for _ in group.servers]
        self._plan = Plan(group, prepare, self._boards, grace, workforce.interval)
        self._wakeup = Wakeup()
        self._selector = selectors.DefaultSelector()
        self._calls: deque[Callable[[], object]] = deque()
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = itertools.count()
        self._workers: dict[int, WorkerProcess] = {}
        self._templates: set[TemplateProcess] = set()
        self._current: TemplateProcess | None = None  # whose workers serve
        self._next: TemplateProcess | None = None  # that loads the code anew
        self._previous: TemplateProcess | None = None  # until the workers of the current one accept
        self._renews_again = False
        self._pause = 0.0
        self._paused_until = 0.0
        self._signals = 0
        self._is_stopping = False
        self._began = 0.0
        self._reports: list[Reported | None] = []
        self._error: BaseException | None = None
        self._ended = threading.Event()
        self._manager = ServiceManager()
        self._thread: int | None = None
        self._report = StopReport(complete=False)
        self.has_served = False
        self.whole = Whole(self, len(group.servers))

    # -- for the caller ---------------------------------------------------------------------------

    def run(self) -> StopReport:
        """Serve until a signal, or until a handler stops the server; the sum of the reports.

        Raises ``WorkerError`` where no worker can start, and what ``on_ready`` and ``on_signal`` raise.
        """
        self._thread = threading.get_ident()
        self._group.represent(self.whole.servers)
        try:
            with receiving(SIGNALS, self._note_signal), self._wakeup.woken_by_signals():
                self._selector.register(self._wakeup, selectors.EVENT_READ, self._wakeup.clear)
                if self._control is not None:
                    listeners = [server.socket for server in self._group.servers]
                    self._control.attach(listeners, self._watch, self._unwatch, self._hand_over)
                self._keep_alive()
                self._next = self._start_template()
                while not self._is_over():
                    self.turn()
        finally:
            self._release()
        self._report = self._sum()
        self.whole.stopped(self._reports, self._report)
        self._ended.set()
        if self._error is not None:
            raise self._error
        return self._report

    def stop(self, grace: float) -> StopReport:
        """Stop; from any thread. Waits for the end, but not in the thread of ``run``."""
        self.call(partial(self._begin_stop, grace))
        if not self.is_here():
            self._ended.wait(grace + 2 * (LAST_WAIT + PATIENCE))
        return self._report

    def suspend(self, index: int, suspended: bool) -> None:
        """Have all workers accept nothing for the server ``index`` for now, or accept again."""
        self.call(partial(self._order_all, Suspend(index, suspended)))

    def call(self, function: Callable[[], object]) -> None:
        """Have the thread of ``run`` call ``function``. From any thread, and from a signal handler."""
        self._calls.append(function)
        self._wakeup.wake()

    def is_here(self) -> bool:
        """True in the thread of ``run``."""
        return threading.get_ident() == self._thread

    def workers(self) -> Sequence[WorkerProcess]:
        """The workers that run."""
        return tuple(self._workers.values())

    @property
    def is_stopping(self) -> bool:
        """True once a stop has begun."""
        return self._is_stopping

    @property
    def has_ended(self) -> bool:
        """True once all workers have ended."""
        return self._ended.is_set()

    # -- the loop ---------------------------------------------------------------------------------

    def turn(self, end: float | None = None) -> None:
        """Wait for the next thing to do, at most until ``end``, and do it."""
        times = [time for time in (end, self._next_time()) if time is not None]
        left = max(0.0, min(times) - monotonic()) if times else None
        for key, _ in self._selector.select(0.0 if self._calls else left):
            key.data()
        while self._calls:
            self._guard(self._calls.popleft())
        while self._due and self._due[0][0] <= monotonic():
            self._guard(heapq.heappop(self._due)[2])
        self._look_for_late()

    def _guard(self, function: Callable[[], object]) -> None:
        """Call what may be the program's: an error stops all, and is raised at the end."""
        try:
            function()
        except BaseException as error:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self._error = self._error or error
        self._begin_stop(self._grace)

    def _after(self, seconds: float, function: Callable[[], object]) -> None:
        heapq.heappush(self._due, (monotonic() + seconds, next(self._numbers), function))

    def _next_time(self) -> float | None:
        times = [time for worker in self.workers() if (time := self._time_of(worker)) is not None]
        return min((*times, *(due[0] for due in self._due[:1])), default=None)

    def _time_of(self, worker: WorkerProcess) -> float | None:
        """When a worker is late: it has not ended, or its accept loop does not turn."""
        timeout = self._workforce.worker_timeout
        if worker.deadline is not None or timeout is None:
            return worker.deadline
        return worker.beat + timeout

    def _look_for_late(self) -> None:
        now = monotonic()
        for worker in self.workers():
            time = self._time_of(worker)
            if time is None or now < time:
                continue
            if worker.is_stalled:
                worker.send_signal(signal.SIGKILL)
                worker.deadline = now + _LONGEST_PAUSE
            else:
                why = "does not end" if worker.deadline is not None else "stalls"
                logger.error("worker %d %s: it dumps its stacks, and is killed", worker.pid, why)
                worker.is_stalled = True
                worker.deadline = now + _DUMP_TIME
                worker.send_signal(signal.SIGUSR2)

    def _is_over(self) -> bool:
        return self._is_stopping and not self._workers and not self._templates

    def _release(self) -> None:
        """Close what is left: after an error of the loop, the workers see that, and end."""
        for template in self._templates:
            template.close()
        for worker in self.workers():
            worker.close()
        for one in (self._control, self._predecessor):
            if one is not None:
                one.close()
        self._selector.close()

    # -- signals ----------------------------------------------------------------------------------

    def _note_signal(self, number: signal.Signals) -> None:
        self.call(partial(self._obey, number))

    def _obey(self, number: signal.Signals) -> None:
        try:
            self._on_signal(number)
        finally:
            match number:
                case signal.SIGINT | signal.SIGTERM:
                    self._signals += 1
                    self._begin_stop(self._grace if self._signals == 1 else 0.0)
                case signal.SIGQUIT:
                    self._begin_stop(0.0)
                case signal.SIGHUP:
                    self._renew()
                case signal.SIGTTIN:
                    self._want(self._wanted + 1)
                case signal.SIGTTOU:
                    self._want(self._wanted - 1)
                case signal.SIGUSR1:
                    reopen_log_files()
                    self._order_all(Reopen())
                case _:
                    self._dump()

    def _order_all(self, order: Order) -> None:
        for worker in self.workers():
            worker.order(order)

    def _dump(self) -> None:
        with suppress(Exception):  # no standard error
            faulthandler.dump_traceback(2, all_threads=True)
        for worker in self.workers():
            worker.send_signal(signal.SIGUSR2)

    def _want(self, number: int) -> None:
        """Have that many workers from now on, if each can have a share of the limits."""
        number = max(1, number)
        current = self._current
        most, why = most_workers(self._group.servers) if current is None else current.most
        if number > most:
            logger.error("there are no more workers than %d: %s", self._wanted, why)
            return
        self._wanted = number
        logger.info("%d workers from now on", number)
        self._fill()
        for worker in self._own():
            worker.share = Share(worker.share.index, number)
            worker.order(worker.share)
        self._settle()

    # -- templates --------------------------------------------------------------------------------

    def _start_template(self) -> TemplateProcess:
        pid, channel = fork_template(self._plan, self._release_in_child)
        forks.forget_last()  # no one but its workers serves, and they end before this process
        template = TemplateProcess(pid, channel, os.pidfd_open(pid))
        self._templates.add(template)
        self._watch(channel, partial(self._read_template, template))
        self._watch(template.watched, partial(self._template_ended, template))
        return template

    def _release_in_child(self) -> None:
        leave_to_parent()
        self._group.represent([None] * len(self._group.servers))
        self._release()

    def _watch(self, source: Any, function: Callable[[], object]) -> None:
        self._selector.register(source, selectors.EVENT_READ, function)

    def _unwatch(self, source: Any) -> None:
        with suppress(KeyError, ValueError):
            self._selector.unregister(source)

    def _read_template(self, template: TemplateProcess) -> None:
        try:
            while template in self._templates and (found := template.channel.receive()) is not None:
                self._hear_template(template, *found)
        except Closed:
            self._unwatch(template.channel)

    def _hear_template(
        self, template: TemplateProcess, message: Any, descriptors: list[int]
    ) -> None:
        match message:
            case Ready(moves, most):
                template.is_ready, template.moves, template.most = True, moves, most
                if self._wanted > most[0]:  # there were more by SIGTTIN, and other limits since
                    self._wanted = most[0]
                    logger.warning("%d workers from now on: %s", *most)
                self._take_over(template)
            case Failed(text):
                self._give_up(template, text)
            case Born(place, pid):
                self._born(self._workers.get(place), pid, descriptors[0])
            case Ended(pid, status):
                self._ended_with(pid, status)

    def _template_ended(self, template: TemplateProcess) -> None:
        """A template has ended; its workers go on, and their ends are seen without it."""
        self._read_template(template)
        self._unwatch(template.channel)
        self._unwatch(template.watched)
        self._templates.discard(template)
        with suppress(ChildProcessError):
            os.waitpid(template.pid, 0)
        template.close()
        for worker in self.workers():
            if worker.template is template and worker.watched == -1:
                self._gone(worker, "was never started")
            elif worker.template is template:
                self._watch(worker.watched, partial(self._gone, worker, "has ended"))
        if template in (self._current, self._next) and not self._is_stopping:
            self._replace_template(template)

    def _replace_template(self, template: TemplateProcess) -> None:
        if template is self._next:
            self._give_up(template, "the process that loads the code has ended")
            return
        logger.error("the process that starts the workers has ended: the code is loaded anew")
        self._current = None
        if self._next is None:
            self._after(self._pause_after_death(), self._renew)

    def _renew(self) -> None:
        """Load the code anew, and then have new workers in place of the old."""
        if self._is_stopping:
            return
        if self._next is not None or self._previous is not None:
            self._renews_again = True
        else:
            self._next = self._start_template()
            if self.has_served:
                self._manager.reloading()

    def _take_over(self, template: TemplateProcess) -> None:
        """The code is loaded: from now on workers are of this template."""
        if template is not self._next:
            return
        self._previous, self._current, self._next = self._current, template, None
        self._pause = self._paused_until = 0.0
        for worker in self.workers():
            worker.is_retiring = True
        self._fill()

    def _give_up(self, template: TemplateProcess, why: str) -> None:
        """The code cannot be loaded, or no worker starts: the old ones go on, if there are any."""
        if template not in (self._current, self._next) or self._is_stopping:
            return
        if not self.has_served:
            self._error = self._error or WorkerError(why)
            self._begin_stop(0.0)
            return
        logger.error("the new code does not serve, the old workers go on: %s", why)
        self._manager.ready(f"{self._status()}; the new code does not serve: {why}")
        template.end()
        if template is self._current:
            self._current, self._previous = self._previous, None
        self._next = None
        self._go_on_with_old()

    def _go_on_with_old(self) -> None:
        for worker in self.workers():
            if worker.template is self._current:
                worker.is_retiring = False
            else:
                self._stop_worker(worker, 0.0)
        self._renew_again_if_asked()
        if self._current is None and self._next is None:  # its template has died meanwhile
            self._after(self._pause_after_death(), self._renew)
        self._fill()

    def _renew_again_if_asked(self) -> None:
        if self._renews_again:
            self._renews_again = False
            self._renew()

    # -- workers ----------------------------------------------------------------------------------

    def _own(self) -> list[WorkerProcess]:
        """The workers that count, in the order of their shares."""
        own = [w for w in self.workers() if w.template is self._current and not w.is_leaving]
        return sorted(own, key=lambda worker: worker.share.index)

    def _fill(self) -> None:
        """Have as many workers as are wanted."""
        if self._is_stopping or self._current is None or monotonic() < self._paused_until:
            return
        own = self._own()
        for worker in own[self._wanted :]:
            worker.is_retiring = True
            self._let_move(worker)
            self._stop_worker(worker, self._grace)
        for _ in range(self._wanted - len(own)):
            self._start_worker(self._current)

    def _start_worker(self, template: TemplateProcess) -> None:
        place = next(place for place in range(1, PLACES + 1) if place not in self._workers)
        taken = {worker.share.index for worker in self._own()}
        index = next(index for index in itertools.count() if index not in taken)
        channel, other = Channel.pair()
        now = monotonic()
        share = Share(index, self._wanted)
        worker = WorkerProcess(
            place, share, template, channel, now, self._workforce.requests_of_one(), beat=now
        )
        self._workers[place] = worker
        self._watch(channel, partial(self._read_worker, worker))
        fork = Fork(place, share, self.whole.forwards, self.whole.suspended())
        template.channel.send(fork, other.fileno(), wait=1.0)
        other.close()

    def _born(self, worker: WorkerProcess | None, pid: int, watched: int) -> None:
        if worker is None:
            os.close(watched)
            return
        worker.pid, worker.watched = pid, watched

    def _read_worker(self, worker: WorkerProcess) -> None:
        try:
            while self._has(worker) and (found := worker.channel.receive()) is not None:
                self._hear(worker, found[0])
        except Closed:
            self._unwatch(worker.channel)

    def _has(self, worker: WorkerProcess) -> bool:
        return self._workers.get(worker.place) is worker

    def _hear(self, worker: WorkerProcess, message: Any) -> None:
        match message:
            case Accepting():
                self._accepts(worker)
            case Beat():
                worker.beat = monotonic()
                worker.refusals = message.refusals
                self._look_for_age(worker, message)
            case Happened():
                self._guard(partial(self.whole.emit, message))
            case Told():
                self.whole.note_answer(worker, message)
            case Reported():
                worker.report = message
                worker.refusals = message.refusals
                if not message.asked and not worker.is_leaving and message.error is None:
                    self._begin_stop(self._grace)  # one of its handlers has stopped the server

    def _accepts(self, worker: WorkerProcess) -> None:
        worker.is_accepting = worker.template.has_accepted = True
        for old in self.workers():
            if worker.template is self._current and old is not worker:
                self._connect(old, worker)
        self._settle()

    def _settle(self) -> None:
        """Once as many accept as are wanted, have those stop that they replace."""
        if self._is_stopping or sum(one.is_accepting for one in self._own()) < self._wanted:
            return
        for old in self.workers():
            if old.is_retiring and not old.is_stopping:
                self._let_move(old)
                self._stop_worker(old, self._grace)
        self._previous = None
        for template in self._templates:
            if template not in (self._current, self._next) and not template.is_ending:
                template.end()
        if not self.has_served:
            self.has_served = True
            if self._predecessor is not None:
                self._group.adopt_files()  # not before: until now they are those of the other
                self._predecessor.release(sum(new.template.moves for new in self._own()))
                self._watch(self._predecessor, self._read_predecessor)
            self._guard(self._announce)
        if self._next is None:
            self._manager.ready(self._status())
        self._renew_again_if_asked()

    def _let_move(self, old: WorkerProcess) -> None:
        """Have the connections of a worker that is to stop go to those that serve."""
        old.is_moving = old.template.moves
        for new in self._own():
            if new.is_accepting:
                self._connect(old, new)

    def _connect(self, old: WorkerProcess, new: WorkerProcess) -> None:
        """Have connections of ``old`` go to ``new``, if both have handlers for that."""
        if not (old.is_moving and new.template.moves):
            return
        first, second = Channel.pair()
        if new.order(Adopt(), second.fileno()):
            load = sum(board.count(new.place) for board in self._boards)
            old.order(Move(load), first.fileno())
        first.close()
        second.close()

    def _read_predecessor(self) -> None:
        """Have workers go on with connections of the supervisor that this one has replaced."""
        if self._predecessor is not None and not self._predecessor.read(self._adopt):
            self._unwatch(self._predecessor)

    def _adopt(self, number: int, channel: int) -> None:
        own = self._own()
        if own:
            own[number % len(own)].order(Adopt(), channel)

    def _announce(self) -> None:
        self.whole.serving(self._group)
        self._on_ready()

    def _status(self) -> str:
        names = ", ".join(name_of(server) for server in self._group.servers)
        return f"serving {names}; workers: {self._wanted}"

    def _keep_alive(self) -> None:
        """Give the watchdog of the service manager signs of life: the supervisor turns.

        It replaces workers that do not.
        """
        self._manager.keep_alive(True)
        if self._manager.next_time is not None:
            self._after(self._manager.next_time - monotonic(), self._keep_alive)

    def _look_for_age(self, worker: WorkerProcess, beat: Beat) -> None:
        """Retire a worker that has done its part; its successor starts first."""
        most = self._workforce.max_memory
        is_large = most is not None and beat.memory > most
        if worker.is_leaving or not (is_large or beat.accepted >= worker.requests):
            return
        what = f"{beat.memory} bytes" if is_large else f"{beat.accepted} requests"
        logger.info("worker %d is replaced after %s", worker.pid, what)
        worker.is_retiring = True
        self._fill()

    def _stop_worker(self, worker: WorkerProcess, grace: float) -> None:
        worker.is_stopping = True
        if not worker.is_stalled:
            end = monotonic() + grace + LAST_WAIT + PATIENCE
            worker.deadline = end if worker.deadline is None else min(end, worker.deadline)
        worker.order(Stop(grace))

    # -- the end of a worker ----------------------------------------------------------------------

    def _ended_with(self, pid: int, status: int) -> None:
        worker = next((worker for worker in self.workers() if worker.pid == pid), None)
        if worker is not None:
            code = os.waitstatus_to_exitcode(status)
            how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
            self._gone(worker, how)

    def _gone(self, worker: WorkerProcess, how: str) -> None:
        if not self._has(worker):
            return
        self._read_worker(worker)
        if not self._has(worker):
            return
        self._unwatch(worker.channel)
        self._unwatch(worker.watched)
        del self._workers[worker.place]
        worker.close()
        for board in self._boards:
            board.leave(worker.place)
        self.whole.note_end(worker)
        if self._is_stopping:
            self._note_last(worker)
        elif not worker.is_stopping:
            level = logging.INFO if worker.report is not None else logging.ERROR
            logger.log(level, "worker %d %s: it is replaced", worker.pid, how)
            self._replace(worker, how)

    def _note_last(self, worker: WorkerProcess) -> None:
        self._reports.append(worker.report)
        if not self._workers:
            for template in self._templates:
                self._after(_LAST_TIME, template.kill)

    def _replace(self, worker: WorkerProcess, how: str) -> None:
        template = worker.template
        if template is self._current and not template.has_accepted:
            template.failures += 1
            if template.failures >= _ATTEMPTS:
                self._give_up(template, f"no worker can start: the last one {how}")
                return
        if monotonic() - worker.born < _YOUNG:
            pause = self._pause_after_death()
            self._paused_until = monotonic() + pause
            self._after(pause, self._fill)
        else:
            self._pause = 0.0
            self._fill()

    def _pause_after_death(self) -> float:
        self._pause = min(max(2 * self._pause, _FIRST_PAUSE), _LONGEST_PAUSE)
        return self._pause

    # -- the stop ---------------------------------------------------------------------------------

    def _begin_stop(self, grace: float) -> None:
        """Stop all workers; a later call can only make it sooner."""
        self._manager.stopping(grace + LAST_WAIT + PATIENCE + _LAST_TIME)
        if not self._is_stopping:
            self._is_stopping = True
            self._began = monotonic()
            self.whole.draining(grace)
            self._group.server_close()  # the workers have the listeners until they have drained
            for template in self._templates:
                template.end()
        for worker in self.workers():
            self._stop_worker(worker, grace)

    def _hand_over(self, workers: int) -> None:
        """So many workers of another supervisor accept from the listeners."""
        logger.info("another process serves from now on")
        self._group.leave_files()
        if self._control is not None:
            for old in self.workers():
                if old.template.moves and not old.is_leaving:
                    self._let_move_over(self._control, old, workers)
        self._begin_stop(self._grace)

    def _let_move_over(self, control: Control, old: WorkerProcess, workers: int) -> None:
        """Have the connections of a worker go to those of another supervisor."""
        for number in range(workers):
            first, second = Channel.pair()
            if control.pass_on(number, second.fileno()):
                old.order(Move(), first.fileno())
            first.close()
            second.close()

    def _sum(self) -> StopReport:
        known = [reported.report for reported in self._reports if reported is not None]
        whole = sum_of(known)
        complete = whole.complete and len(known) == len(self._reports)
        return replace(whole, seconds=monotonic() - self._began, complete=complete)
