"""The acceptor: it takes requests off the listener, one or many, and backs off where that fails.

The accept loop calls it when a request waits; ``Flow.admit`` is what comes next.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from everserve.concurrency.strategy import Strategy
from everserve.events import BackedOff
from everserve.fibers.exits import began_in_signal_handler
from everserve.lifecycle.emitter import Emitter
from everserve.lifecycle.state import LifeCycle, ServerState
from everserve.server.arrivals import Arrivals
from everserve.server.balance import Balance
from everserve.server.datagramflow import DatagramFlow
from everserve.server.flow import Flow
from everserve.server.hooks import Hooks, is_default
from everserve.server.listener import Listener, listener_of
from everserve.settings import SettingsReader
from everserve.sockets.accepting import BackOff, Verdict, classify
from everserve.sockets.datagrams import Exchange

__all__ = ["BATCH", "Acceptor"]

MOST_SESSIONS = 10_000
"""Sessions in progress without ``max_connections``: forged addresses can open any number."""

BATCH = 100
"""Requests to take before the loop looks at anything else, as gevent does."""


class Acceptor:
    """Takes requests for one server. ``listener`` is that of the run in progress, if there is one.

    ``balance`` is set where other processes accept from the same listener.
    """

    def __init__(
        self,
        *,
        settings: SettingsReader,
        flow: Flow,
        datagrams: DatagramFlow,
        strategy: Strategy,
        life: LifeCycle,
        emitter: Emitter,
    ) -> None:
        self._settings = settings
        self._flow = flow
        self._datagrams = datagrams
        self._strategy = strategy
        self._life = life
        self._emitter = emitter
        self.back_off = BackOff()
        self.arrivals = Arrivals(life.wake)
        self.listener: Listener | None = None
        self.balance: Balance | None = None
        self._is_overridden = False
        self.is_alone = False  # the loop waits for these requests and wake-ups, and nothing else

    def begin(self, hooks: Hooks, listener: Listener) -> None:
        """Note the listener of a run."""
        self.listener = listener
        self.arrivals.open()
        self.is_alone = False
        # While sessions are open the loop must go on: what comes may be for one of them.
        has_sessions = listener.has_datagrams and self._datagrams.sessions is not None
        self._flow.begin(
            bounds_datagrams=listener.has_datagrams and not has_sessions,
            most_sessions=MOST_SESSIONS if has_sessions else None,
        )
        if listener.has_datagrams:
            self._datagrams.begin()
        self._is_overridden = not is_default(hooks._handle_request_noblock)

    def end(self) -> None:
        """The run has ended: forget its listener, and let the sessions end with what they have."""
        self.listener = None
        if self._datagrams.sessions is not None:
            self._datagrams.sessions.finish_all()
        self.arrivals.close()

    def take_arrivals(self, hooks: Hooks) -> None:
        """Go on with the connections that have come from another process."""
        self.arrivals.admit(partial(self._flow.admit_again, hooks))

    def can_accept(self) -> bool:
        """False where the next request is to wait in the kernel's queue."""
        self._life.gated = True  # before it looks, so that room made meanwhile is not missed
        if (self.back_off.delay and self.back_off.remaining()) or not self._flow.has_room():
            return False
        if self.balance is not None and self._leaves_to_others(self.balance):
            return False
        self._life.gated = False
        return True

    def _leaves_to_others(self, balance: Balance) -> bool:
        if self._life.draining and not balance.has_left:
            balance.leave()
        balance.note(self._flow.in_progress())
        return balance.pause() > 0.0

    def pause(self) -> float:
        """Seconds until the next attempt may be made; 0.0 for now."""
        if self.back_off.delay and (remaining := self.back_off.remaining()):
            return remaining
        pause = self._flow.pause()
        return pause if self.balance is None else max(pause, self.balance.pause())

    def take_many(self, hooks: Hooks) -> None:
        """Take what is there, as long as more may come in; asking poll(2) between saves nothing."""
        listener, take, balance = self._listener(hooks), self._take_one, self.balance
        if balance is not None and not listener.accepts_connections:
            balance = None  # each datagram is a request of its own
        if balance is not None and not balance.may_take(self._flow.in_progress()):
            return
        if self._is_overridden:
            take = _take_by_hook
        elif self._strategy.accept_many is not None and listener.accepts_streams:
            take = self._take_batch
        if not listener.takes_batches(hooks.get_request):
            hooks._handle_request_noblock()
            return
        if listener.exchange is not None and not self._is_overridden:
            self._take_datagrams(hooks, listener.exchange)
            return
        for _ in range(BATCH):
            if not take(hooks) or not self._life.taking or not self.can_accept():
                return
            if balance is not None and not balance.took(self._flow.in_progress()):
                return

    def take(self, hooks: Hooks) -> bool:
        """Take one request that is known to wait, or a batch, and admit it. False if none was there."""
        if self.listener is None:  # no loop runs that has read them
            self._settings.read()
        if self._strategy.accept_many is not None and self._accepts_in_batches(hooks):
            return self._take_batch(hooks)
        return self._take_one(hooks)

    def _take_one(self, hooks: Hooks) -> bool:
        if self.listener is not None:
            self.listener.prepare()
        try:
            request, client_address = hooks.get_request()
        except OSError as error:
            self._accept_failed(error)
        except Exception as error:
            if began_in_signal_handler(error):
                raise
            self._failed_early(hooks, f"{type(hooks).__name__}.get_request()", error)
        else:
            self.back_off.succeed()
            self._flow.admit(hooks, request, client_address)
            return True
        return False

    def _accepts_in_batches(self, hooks: Hooks) -> bool:
        listener = self._listener(hooks)
        return listener.accepts_streams and listener.takes_batches(hooks.get_request)

    def _take_batch(self, hooks: Hooks) -> bool:
        accept_many: Any = self._strategy.accept_many
        try:
            accepted = accept_many(hooks.fileno(), self._room())
        except OSError as error:
            self._accept_failed(error)
            return False
        if accepted:
            self.back_off.succeed()
        begun = 0
        try:
            for request, client_address in accepted:
                begun += 1
                self._flow.admit(hooks, request, client_address)
        except BaseException:  # ends the run: the others of the batch go with it
            for request, client_address in accepted[begun:]:
                self._flow.drop(hooks, request, client_address)
            raise
        return bool(accepted)  # more may have come meanwhile: to try costs less than to poll

    def _take_datagrams(self, hooks: Hooks, exchange: Exchange) -> None:
        """Take one batch. If more wait, the loop comes back, which looks at all else before.

        Where there is nothing else, it waits here: a turn of the loop takes 6 microseconds, a third of
        what one datagram costs.
        """
        alone = self.is_alone and is_default(hooks.service_actions)
        wakeup = self._life.wakeup().fileno() if alone else -1
        for _ in range(BATCH):
            try:
                received = self._datagrams.receive(hooks, exchange)
            except OSError as error:
                self._accept_failed(error)
                return
            if received:
                self.back_off.succeed()
                self._datagrams.admit(hooks, exchange, received)
            if not (alone and self._life.taking and self.can_accept()):
                return
            # After several at once more mostly wait: a try costs no more than a poll.
            if len(received) <= 1 and not exchange.wait(wakeup):
                return

    def _room(self) -> int:
        room = self._flow.room(BATCH)
        return room if self.balance is None else max(1, min(room, self.balance.room))

    def _listener(self, hooks: Hooks) -> Listener:
        return self.listener or listener_of(hooks)

    def _accept_failed(self, error: OSError) -> None:
        if error.errno is None and began_in_signal_handler(error):
            raise error
        verdict = classify(error)
        if verdict is Verdict.FATAL and self._life.state is not ServerState.STOPPED:
            raise error
        if verdict is Verdict.BACK_OFF:
            delay = self.back_off.fail()
            if delay is not None:
                self._emitter.log(BackedOff(error, delay, self.back_off.reported()))

    def _failed_early(self, hooks: Hooks, what: str, error: Exception) -> None:
        """Report what failed before there was a request, and do not repeat it at full speed."""
        self.back_off.fail()
        error.add_note(f"raised by {what}, before there was a request")
        hooks.handle_error(None, None)


def _take_by_hook(hooks: Hooks) -> bool:
    """As a program does that has overridden the standard library's own hook."""
    return bool(hooks._handle_request_noblock())
