"""The accept loop: wait for the listeners, hand requests over, and again.

``Conductor`` runs it for ``serve_forever``, and one turn of it for ``handle_request``. It never waits
for a peer, and it wakes for nothing but a request, a change of a server's state, or a timer that is
due.
"""

from __future__ import annotations

import selectors
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import monotonic, sleep
from typing import Any

from everserve.concurrency.strategy import Strategy
from everserve.fibers.exhaustion import EXHAUSTED, PAUSE, log_exhaustion
from everserve.lifecycle.state import LifeCycle
from everserve.server.acceptor import Acceptor
from everserve.server.hooks import Hooks, is_default
from everserve.server.listener import leave_all_to_parent
from everserve.settings import SettingsReader

__all__ = ["AcceptLoop", "Port"]


# poll(2) takes no descriptor of its own; the fallback is for Windows.
_PROBE: type[selectors.BaseSelector] = getattr(selectors, "PollSelector", selectors.DefaultSelector)


class Port:
    """One server in a loop: its hooks and parts, and how far its stop is.

    ``obey(order)`` carries out what another process has relayed.
    """

    def __init__(
        self,
        hooks: Hooks,
        *,
        settings: SettingsReader,
        acceptor: Acceptor,
        strategy: Strategy,
        life: LifeCycle,
        obey: Callable[[Any], object] = lambda order: None,
    ) -> None:
        self.hooks = hooks
        self.settings = settings
        self.strategy = strategy
        self.life = life
        self._acceptor = acceptor
        self._obey = obey
        self.descriptor = -1
        self.is_listened_to = False
        self.is_ready = False
        self.is_serviced = False  # a program's own ``service_actions`` is to be called
        self._left_to_drain: int | None = None

    def wants_request(self, *, asked: bool) -> bool:
        """True if the loop is to wait for the next request; ``asked``: one was asked for."""
        wanted = asked or self.life.taking or self._left_to_drain is not None
        return wanted and self._acceptor.can_accept()

    def is_open(self) -> bool:
        """False once the listener has been closed."""
        return self.hooks.fileno() >= 0

    def note_ready(self) -> None:
        """A request waits."""
        self.is_ready = True

    def pause(self) -> float | None:
        """Seconds after which a request may be taken that may not be now, ``None`` for no such time.

        Asked for before ``wants_request``. In the other order, a pause that ends between the two leaves
        the loop with neither a listener nor a time: it would wait for ever.
        """
        return self._acceptor.pause() or None

    def shortened_by_stop(self, pause: float | None) -> float | None:
        """The pause, but no longer than a stop may wait; none where its drain listens."""
        if self._left_to_drain is None:
            return pause
        left = 0.0 if self.is_listened_to else max(0.0, self.life.stop.deadline - monotonic())
        return left if pause is None else min(left, pause)

    def note_alone(self) -> None:
        """The loop waits for nothing but these requests and wake-ups: the acceptor may do so too."""
        self._acceptor.is_alone = True

    def take(self, *, one: bool) -> None:
        """Take what waits, if something does; ``one``: no more than that."""
        if not self.is_ready:
            return
        if self._left_to_drain is not None:
            self._left_to_drain -= 1
            self.hooks._handle_request_noblock()
        elif self.life.taking and one:
            self.hooks._handle_request_noblock()
        elif self.life.taking:
            self._acceptor.take_many(self.hooks)

    def take_arrivals(self) -> None:
        """Go on with the connections that have come from another process."""
        if self._acceptor.arrivals.waiting:
            self._acceptor.take_arrivals(self.hooks)

    def attend(self) -> None:
        """Do what is due after each turn, but not once the run is to end."""
        self.strategy.attend()
        order = self.strategy.take_order()
        if order is not None:
            self._obey(order)

    def needs_service(self) -> bool:
        """True if something is to be done regularly even while no request comes."""
        self.is_serviced = not is_default(self.hooks.service_actions)
        return self.is_serviced or (self.strategy.attends and self.strategy.needs_attention())

    def is_over(self) -> bool:
        """True when the loop need not look at it any more; a stop drains the backlog first.

        What waits now is served, not what comes for ever, and not after the deadline.
        """
        stop = self.life.stop
        if stop is None or stop.report is not None:
            return True
        if self._left_to_drain is None:
            backlog = getattr(self.hooks, "request_queue_size", 0)
            self._left_to_drain = max(0, backlog) + 1  # listen(2): one more than asked
        elif self._left_to_drain == 0 or (self.is_listened_to and not self.is_ready):
            return True
        if stop.is_over() or self.hooks.fileno() < 0:
            return True
        # During a pause, such as that of a rate, only what waits already is a reason to go on.
        return not self.is_listened_to and not _has_waiting(self.hooks)


def _has_waiting(hooks: Hooks) -> bool:
    """True if a connection, or a datagram, waits in the kernel's queue."""
    with _PROBE() as probe:
        probe.register(hooks.fileno(), selectors.EVENT_READ)
        return bool(probe.select(0))


class AcceptLoop:
    """One run over the listeners of some servers. The caller opens it and runs it."""

    def __init__(self, ports: Sequence[Port], selector: selectors.BaseSelector) -> None:
        self._ports = list(ports)
        self._active = list(ports)  # those that are not retired
        self._selector = selector
        if len(ports) == 1 and ports[0].strategy.runs_at_once:
            ports[0].note_alone()

    @contextmanager
    def open(self) -> Iterator[AcceptLoop]:
        """Wait on the listeners and on the servers' wake-ups until the block ends."""
        wakeups = [port.life.wakeup() for port in self._ports]
        with wakeups[0].woken_by_signals(), self._selector:
            for wakeup in wakeups:
                self._selector.register(wakeup, selectors.EVENT_READ, wakeup.clear)
            try:
                for port in self._ports:
                    self._attach(port)
                yield self
            finally:
                for port in self._ports:
                    port.strategy.detach(self)

    def _attach(self, port: Port) -> None:
        port.strategy.attach(self)
        for descriptor in port.strategy.watched():
            self.watch(descriptor)
        self._listen(port)

    def watch(self, descriptor: int) -> None:
        """Call what a strategy has for ``descriptor`` when it is readable."""
        self._selector.register(descriptor, selectors.EVENT_READ)

    def unwatch(self, descriptor: int) -> None:
        """Wait for ``descriptor`` no more."""
        self._selector.unregister(descriptor)

    def leave_to_parent(self) -> None:
        """In a child of fork: leave all listeners to the parent alone, so that it can close them."""
        leave_all_to_parent()
        for port in self._ports:
            port.strategy.become_child()

    def run(self, poll_interval: float, on_retired: Callable[[Port], object]) -> None:
        """Serve until every server's state says otherwise; ``on_retired(port)`` when one's does."""
        while self._go_on(on_retired):
            serviced = False
            for port in self._active:
                serviced = port.needs_service() or serviced
            self._wait(poll_interval if serviced else None)
            for port in self._active:
                port.life.turns += 1
                port.settings.read()  # once a turn, not for each request
                port.take(one=serviced)
                port.take_arrivals()
                if port.life.accepting:
                    if port.strategy.attends:
                        port.attend()
                    if port.is_serviced:
                        port.hooks.service_actions()

    def _go_on(self, on_retired: Callable[[Port], object]) -> bool:
        """Retire the ports that are over; false when none is left."""
        for port in tuple(self._active):
            if not port.life.accepting and port.is_over():
                self._active.remove(port)
                self._unlisten(port)
                on_retired(port)
        return bool(self._active)

    def turn(self, deadline: float | None) -> bool:
        """Handle one request that comes before ``deadline`` (monotonic). False if none came.

        For a loop over one server that does not serve. A stop that is called for meanwhile ends it too;
        after ``server_close()`` alone it waits until ``deadline``, as the standard library does.
        """
        (port,) = self._ports
        before = port.life.stop
        port.attend()
        while port.life.stop is before and (port.is_open() or deadline is not None):
            port.settings.read()  # a wake-up may say that a limit was changed
            left = None if deadline is None else max(0.0, deadline - monotonic())
            self._wait(left, asked=port.is_open())
            if port.is_ready and port.is_open():
                port.hooks._handle_request_noblock()
                break
            if deadline is not None and monotonic() >= deadline:
                return False
            port.attend()
        return True

    def _wait(self, timeout: float | None, *, asked: bool = False) -> None:
        """Wait for a request, a wake-up, or ``timeout`` seconds."""
        for port in self._active:
            port.is_ready = False
            pause = port.pause()
            self._listen(port, asked=asked)
            pause = port.shortened_by_stop(pause)
            if pause is not None and (timeout is None or pause < timeout):
                timeout = pause
        for key, _ in self._select(timeout):
            if key.data is not None:
                key.data()
            else:
                self._call_strategy(key.fd)

    def _select(self, timeout: float | None) -> list[tuple[selectors.SelectorKey, int]]:
        """What is ready; nothing, after a pause, where the system is out of memory for a wait."""
        try:
            return self._selector.select(timeout)
        except OSError as error:
            if error.errno not in EXHAUSTED:
                raise
            log_exhaustion(error)
            sleep(PAUSE)
            return []

    def _call_strategy(self, descriptor: int) -> None:
        for port in self._ports:
            callback = port.strategy.watched().get(descriptor)
            if callback is not None:
                callback()

    def _listen(self, port: Port, *, asked: bool = False) -> None:
        wanted = port.wants_request(asked=asked)
        if wanted is port.is_listened_to:
            return
        if wanted:
            port.descriptor = port.hooks.fileno()
            if port.descriptor < 0:  # closed just now, by another thread
                return
            self._selector.register(port.descriptor, selectors.EVENT_READ, port.note_ready)
            port.is_listened_to = True
        else:
            self._unlisten(port)

    def _unlisten(self, port: Port) -> None:
        if port.is_listened_to:
            self._selector.unregister(port.descriptor)
            port.is_listened_to = False
