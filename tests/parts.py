"""The parts of a server without a server: the surroundings of the one part that a test drives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from tests.scenes import EventRecorder

from everserve.admission.control import AdmissionControl
from everserve.admission.watchdog import Watchdog
from everserve.concurrency.strategy import Strategy, StrategyParts
from everserve.lifecycle.connections import ConnectionTable
from everserve.lifecycle.emitter import Emitter
from everserve.lifecycle.progress import Progress
from everserve.lifecycle.state import LifeCycle
from everserve.server.hooks import default_hook
from everserve.settings import Settings, SettingsReader

__all__ = ["FixedSettings", "NotedHooks", "Parts"]


class FixedSettings:
    """A fake ``SettingsReader``: the test gives the values, and may replace them."""

    changed = False

    def __init__(self, **values: Any) -> None:
        self.values = Settings(**values)
        self.readings = 0

    def reads(self, name: str) -> bool:
        return True

    def note_change(self) -> None:
        self.changed = True

    def read(self) -> Settings:
        self.readings += 1
        self.changed = False
        return self.values


class NotedHooks:
    """The documented hooks, instead of a server: ``calls`` has the names of those called.

    A keyword is what one of them does instead of nothing.
    """

    server_address: Any = "here"
    request_queue_size = 5

    def __init__(self, **does: Callable[..., Any]) -> None:
        self.calls: list[str] = []
        self.does = does

    def _call(self, name: str, *arguments: Any, otherwise: Any = None) -> Any:
        self.calls.append(name)
        return self.does[name](*arguments) if name in self.does else otherwise

    def fileno(self) -> int:
        return int(self.does["fileno"]()) if "fileno" in self.does else 0

    def get_request(self) -> Any:
        return self._call("get_request")

    def verify_request(self, request: Any, client_address: Any) -> Any:
        return self._call("verify_request", request, client_address, otherwise=True)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._call("process_request", request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        self._call("process_request_thread", request, client_address)

    @default_hook
    def service_actions(self) -> None:
        pass

    def handle_timeout(self) -> None:
        self._call("handle_timeout")

    def finish_request(self, request: Any, client_address: Any) -> None:
        self._call("finish_request", request, client_address)

    def RequestHandlerClass(self, request: Any, client_address: Any, server: Any) -> None:
        self._call("RequestHandlerClass", request, client_address, server)

    def handle_error(self, request: Any, client_address: Any) -> None:
        self._call("handle_error", request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._call("shutdown_request", request)

    def close_request(self, request: Any) -> None:
        self._call("close_request", request)

    def server_close(self) -> None:
        self._call("server_close")

    def _handle_request_noblock(self) -> bool:
        return bool(self._call("_handle_request_noblock", otherwise=True))


class Parts:
    """The parts that use no hooks, connected as in a ``Runtime``; ``recorder`` has the events."""

    def __init__(self, strategy: type[Strategy] = Strategy, **settings: Any) -> None:
        self.settings: Any = FixedSettings(**settings)
        self.life = LifeCycle(strategy.here)
        self.connections = ConnectionTable()
        self.control = AdmissionControl()
        self.emitter = Emitter()
        self.watchdog = Watchdog()
        self.progress = Progress(self.connections, self.control, self.emitter, self.life)
        self.strategy = strategy(
            StrategyParts(
                settings=cast(SettingsReader, self.settings),
                life=self.life,
                connections=self.connections,
                control=self.control,
                emitter=self.emitter,
                progress=self.progress,
            )
        )
        self.recorder = EventRecorder()
        self.emitter.subscribe(self.recorder)
