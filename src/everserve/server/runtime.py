"""The engine room of a server: the plain objects that do the work, put together in one place.

A server object has the standard library's API, the new public names, and this behind one private
attribute. Nothing here keeps the server alive.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Self, overload

from everserve.admission.control import AdmissionControl
from everserve.admission.host import Host
from everserve.admission.watchdog import Watchdog
from everserve.concurrency.strategy import Strategy, StrategyParts
from everserve.fibers import engines
from everserve.lifecycle.state import LifeCycle
from everserve.server.acceptor import Acceptor
from everserve.server.balance import Balance
from everserve.server.conductor import Conductor
from everserve.server.departure import Departing, Departure, Parcel
from everserve.server.elsewhere import Elsewhere
from everserve.server.listener import remember
from everserve.settings import SettingsReader
from everserve.sockets.datagrams import DatagramSocket, drops_of

if TYPE_CHECKING:
    from everserve.lifecycle.connections import ConnectionTable
    from everserve.lifecycle.emitter import Emitter
    from everserve.lifecycle.progress import Progress
    from everserve.lifecycle.sessions import SessionTable
    from everserve.server.datagramaccount import DatagramAccount
    from everserve.server.datagramflow import DatagramFlow
    from everserve.server.flow import Flow
else:
    ConnectionTable = engines.part("connections", "lifecycle").ConnectionTable
    Progress = engines.part("progress", "lifecycle").Progress
    SessionTable = engines.part("sessions", "lifecycle").SessionTable
    DatagramFlow = engines.part("datagramflow", "server").DatagramFlow
    DatagramAccount = engines.part("datagramaccount", "server").DatagramAccount
    Emitter = engines.part("emitter", "lifecycle").Emitter
    Flow = engines.part("flow", "server").Flow

__all__ = ["Runtime", "RuntimeSlot"]


class Runtime(Host):
    """All the parts of one server."""

    def __init__(self, server: object, strategy: type[Strategy]) -> None:
        remember(server)
        self.settings = SettingsReader(server)
        self.emitter = Emitter()
        self.control = AdmissionControl()
        self.connections = ConnectionTable()
        self.watchdog = Watchdog()
        self.life = LifeCycle(strategy.here)
        self.progress = Progress(self.connections, self.control, self.emitter, self.life)
        self.strategy = self._make(strategy)
        self.flow = self._make_flow()
        self.strategy.finish = self.flow.finish_by_hook
        self.strategy.begin_early = self.flow.begin_early
        self.strategy.end_refused = self.flow.end_refused
        self.datagrams = self._make_datagram_flow()
        self.acceptor = Acceptor(
            settings=self.settings,
            flow=self.flow,
            datagrams=self.datagrams,
            strategy=self.strategy,
            life=self.life,
            emitter=self.emitter,
        )
        self.conductor = self._make_conductor()
        self.elsewhere: Elsewhere | None = None  # where workers serve

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        """The server was dropped: end its threads, and undo what keeps the parts alive.

        None of the parts refers to this: so they go with the server, without the collector. At the end
        of the interpreter the threads have ended already, perhaps with a lock that this would take.
        """
        if hasattr(self, "elsewhere") and not is_finalizing():  # else it was not made
            self.strategy.abandon()
            self.flow.forget_sweep()
            self.life.forget_stop()
            self.connections.forget_all()
            self.watchdog.close()  # last: it looks whether deadlines are left

    def _make(self, strategy: type[Strategy]) -> Strategy:
        return strategy(
            StrategyParts(
                settings=self.settings,
                life=self.life,
                connections=self.connections,
                control=self.control,
                emitter=self.emitter,
                progress=self.progress,
            )
        )

    def _make_flow(self) -> Flow:
        return Flow(
            settings=self.settings,
            control=self.control,
            progress=self.progress,
            connections=self.connections,
            watchdog=self.watchdog,
            strategy=self.strategy,
            life=self.life,
        )

    def _make_datagram_flow(self) -> DatagramFlow:
        account = DatagramAccount(
            self.flow,
            settings=self.settings,
            control=self.control,
            progress=self.progress,
            connections=self.connections,
            emitter=self.emitter,
            watchdog=self.watchdog,
        )
        return DatagramFlow(
            self.flow,
            account,
            settings=self.settings,
            progress=self.progress,
            connections=self.connections,
            strategy=self.strategy,
            emitter=self.emitter,
        )

    def _make_conductor(self) -> Conductor:
        return Conductor(
            settings=self.settings,
            life=self.life,
            connections=self.connections,
            strategy=self.strategy,
            acceptor=self.acceptor,
            emitter=self.emitter,
            watchdog=self.watchdog,
        )

    def open_sessions(self) -> SessionTable:
        """The sessions of a server of datagrams, which has them from now on."""
        if self.datagrams.sessions is None:
            self.datagrams.sessions = SessionTable(
                settings=self.settings,
                control=self.control,
                progress=self.progress,
                emitter=self.emitter,
                life=self.life,
            )
        return self.datagrams.sessions

    def note_drops(self, server: Any, *, last: bool = False) -> None:
        """Count the datagrams for ``server`` that the kernel has dropped; ``last``: report them now."""
        sock = getattr(server, "socket", None)
        if isinstance(sock, DatagramSocket) and (total := drops_of(sock)) is not None:
            self.progress.dropped(total, last=last)

    @property
    def execution(self) -> Any:
        return self.strategy.execution

    def connection_of(self, request: Any) -> Any:
        return self.connections.find(request)

    def is_draining(self) -> bool:
        return self.conductor.is_draining()

    def share(self, balance: Balance) -> None:
        """Accept from a listener from which other processes accept too."""
        self.acceptor.balance = balance
        connections = self.connections  # not ``self``, which the server alone keeps alive
        self.progress.on_ended = lambda: balance.note(len(connections))

    def depart(
        self,
        server: Any,
        place: str,
        counts: Departing,
        on_ready: Callable[[Sequence[Parcel]], object],
    ) -> Departure:
        """What has connections of this server move to another process, which knows it by ``place``."""
        return Departure(
            server,
            place=place,
            flow=self.flow,
            progress=self.progress,
            connections=self.connections,
            strategy=self.strategy,
            counts=counts,
            on_ready=on_ready,
        )

    def suspend(self, suspended: bool) -> None:
        if self.elsewhere is None:
            self.life.suspend(suspended)
        else:
            self.elsewhere.suspend(suspended)

    def coalesces_writes(self) -> bool:
        return self.settings.values.coalesce_writes

    def max_line(self) -> int | None:
        return self.settings.values.max_line

    def start_tls(self, server: Any, request: Any, client_address: Any) -> Any:
        return self.flow.start_tls(server, request, client_address)

    def parking_of(self, server: Any, connection: Any, request: Any) -> Any:
        return self.flow.parking_of(server, connection, request)

    def conversation_ended(self, conversation: Any, error: BaseException | None) -> None:
        self.flow.end_conversation(conversation.handler.server, conversation, error)

    def give_key(self, connection: Any, key: Any) -> None:
        self.connections.give_key(connection, key)

    def forget_key(self, connection: Any) -> None:
        self.connections.forget_key(connection)


class RuntimeSlot:
    """The one private attribute of a server class: it makes the ``Runtime`` when it is first asked for.

    The first class in the order of resolution says which strategy there is: a mix-in before a server.
    A server that was made in an odd way has it too (``__new__``, a patched ``__init__``).
    """

    def __init__(self, strategy: type[Strategy]) -> None:
        self.strategy = strategy

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type) -> Runtime: ...
    def __get__(self, instance: object | None, owner: type) -> Self | Runtime:
        if instance is None:
            return self
        runtime = Runtime(instance, self.strategy)
        kept: Runtime = vars(instance).setdefault("_everserve", runtime)  # many may ask at once
        return kept
