# cython: binding=False, annotation_typing=False
"""The sessions of a server of datagrams, by their peers.

``DatagramSessionMixIn`` asks it for each datagram: a new peer's opens a session, which goes the way of
a connection from there; those that follow go to that session, past everything else. One
source for both engines: ``_sessions`` is this file, compiled, with the types of ``_sessions.pxd``.
"""

from __future__ import annotations

import threading
from time import monotonic
from typing import TYPE_CHECKING, Any

from everserve.admission.control import AdmissionControl
from everserve.events import RepliesWithheld
from everserve.lifecycle.emitter import Emitter
from everserve.lifecycle.progress import Progress
from everserve.lifecycle.session import Session
from everserve.lifecycle.state import LifeCycle
from everserve.lifecycle.tally import Tally
from everserve.settings import SettingsReader

if TYPE_CHECKING:
    from everserve.lifecycle.sessionstate import SessionState

__all__ = ["SessionTable"]


class SessionTable:
    """The open sessions of one server. ``route`` is for the accept loop, the rest for any thread."""

    def __init__(
        self,
        *,
        settings: SettingsReader,
        control: AdmissionControl,
        progress: Progress,
        emitter: Emitter,
        life: LifeCycle,
    ) -> None:
        self._settings = settings
        self._control = control
        self._progress = progress
        self._emitter = emitter
        self._life = life
        self._lock = threading.Lock()
        self._by_peer: dict[Any, SessionState] = {}
        self._withheld = Tally()

    def __len__(self) -> int:
        return len(self._by_peer)

    def route(self, datagram: Any, peer: Any) -> Session | None:
        """Put a datagram into the session of its peer, ``None``; or open one, and return that.

        A sender without an address (an unbound Unix socket) cannot be distinguished from others: each
        of its datagrams has a session of its own. So has each datagram while no accept loop runs, as
        no more would come.
        """
        state = self._by_peer.get(peer)
        if state is not None and self._put(state, datagram):
            state.peer = peer  # the same address: to the latest object a reply costs least
            return None
        session = Session(datagram, peer, self)
        if not peer or not self._life.serving_here():
            session.state.finish()
            return session
        with self._lock:
            self._by_peer[peer] = session.state
        return session

    def _put(self, state: SessionState, datagram: Any) -> bool:
        settings = self._settings.values
        result = state.put(datagram, settings.peer_queue, settings.peer_queue_drops)
        if result is False:
            return False
        if result is not True:
            self._control.count_refusal("peer_queue")
            self._progress.overflowed(state.peer)
        if result is not datagram and getattr(datagram, "truncated", False):
            self._progress.truncated(datagram, state.peer)
        return True

    def close(self, session: Session) -> None:
        """Forget a session that has ended; what its handler has not read is counted."""
        state = session.state
        with self._lock:
            if self._by_peer.get(state.peer) is state:
                del self._by_peer[state.peer]
        state.cut()
        unread, state.unread = state.unread, 0
        for _ in range(unread):
            self._control.count_refusal("unread")

    def finish_all(self) -> None:
        """Let all sessions end when they have read what waits: no accept loop runs any more."""
        with self._lock:
            states = tuple(self._by_peer.values())
        for state in states:
            state.finish()

    # -- for the sessions ----------------------------------------------------------------------

    def budget(self) -> float | None:
        """The option ``reply_budget``."""
        return self._settings.values.reply_budget

    def withheld(self, state: SessionState) -> None:
        """Count a reply that was not sent, and report it, at most once a second."""
        self._control.count_refusal("reply_budget")
        if count := self._withheld.add(monotonic()):
            self._emitter.log(RepliesWithheld(state.peer, count))
