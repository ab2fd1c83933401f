"""``dask://host:8786``: an executor of a Dask cluster, by its own client.

Dask runs a call again whose worker has died. For a handler that is not idempotent, a plugin of the
scheduler prevents that.
"""

from __future__ import annotations

import uuid
from concurrent.futures import BrokenExecutor, Executor
from functools import lru_cache
from typing import Any, Final

from everserve.errors import OptionError

__all__ = [
    "ONCE",
    "OncePlugin",
    "client_of",
    "connect",
    "install_once",
    "is_closed",
    "is_dask",
    "is_lost",
    "pack",
    "plain",
    "submit",
]

ONCE: Final = "everserve-once-"
"""How the keys of those calls begin that run at most once."""

_TIMEOUT: Final = 10.0  # seconds that a scheduler has to answer; Dask itself waits 30


_LOSSES: Final = ("ClosedClientError", "CommClosedError", "FutureCancelledError", "KilledWorker")
"""By name, as Dask may not be installed."""


def is_dask(executor: Any) -> bool:
    """True for an executor of a Dask client."""
    return any(kind.__module__.startswith("distributed.") for kind in type(executor).__mro__)


def connect(address: str) -> Executor:
    """The executor of a new client. Raises ``OptionError`` if no scheduler answers."""
    from distributed import Client  # noqa: PLC0415  # an optional dependency

    try:
        client = Client(f"tcp://{address}", timeout=_TIMEOUT, set_as_default=False)
    except (OSError, TimeoutError) as error:
        raise OptionError(
            f"executor = 'dask://{address}': no scheduler answers there: {error}"
        ) from error
    executor: Executor = client.get_executor()
    return executor


def client_of(executor: Any) -> Any:
    """The client that the executor belongs to."""
    return executor._client


def is_closed(executor: Any) -> bool:
    """True once its client has given up: it lost its scheduler, and did not find it again."""
    return bool(client_of(executor).status in ("closed", "closing"))


def is_lost(error: BaseException) -> bool:
    """True for an error that says that workers, or the scheduler, have gone."""
    return type(error).__name__ in _LOSSES


def plain(error: BaseException) -> BaseException:
    """The error of a lost worker, in a few words; Dask's own counts deaths that did not happen."""
    if type(error).__name__ != "KilledWorker":
        return error
    worker = getattr(getattr(error, "last_worker", None), "address", "")
    return BrokenExecutor(f"the worker {worker} has died")


@lru_cache(maxsize=16)
def pack(function: Any) -> bytes:
    """The function for ``run_packed``. One of a program's own file is packed with its code."""
    import cloudpickle  # noqa: PLC0415  # Dask brings it

    packed: bytes = cloudpickle.dumps(function)
    return packed


def submit(executor: Any, function: Any, arguments: Any, *, once: bool) -> Any:
    """Submit a call under a key of its own: Dask takes equal keys, of equal calls, for one call."""
    prefix = ONCE if once else "everserve-message-"
    return executor.submit(function, *arguments, key=f"{prefix}{uuid.uuid4().hex}")


class OncePlugin:
    """Has the scheduler give up a call at the first death of its worker; by default it is the fourth.

    Nor does it run one again whose result is lost with the worker, before the server got it. It reads
    and writes the tasks as they are in the scheduler (``distributed.scheduler.TaskState``).
    """

    name = "everserve-once"
    idempotent = True  # it is installed once, however many servers ask for it

    async def start(self, scheduler: Any) -> None:
        """Note the scheduler."""
        self.scheduler = scheduler

    def update_graph(self, scheduler: Any, *, tasks: Any, **others: Any) -> None:
        """Have new calls be as suspicious as a call may be."""
        for key in tasks:
            if str(key).startswith(ONCE):
                scheduler.tasks[key].suspicious = scheduler.allowed_failures

    def transition(self, key: Any, start: str, finish: str, *others: Any, **more: Any) -> None:
        """Forget how to run a call that has been run."""
        if finish == "memory" and str(key).startswith(ONCE):
            self.scheduler.tasks[key].run_spec = None


def install_once(executor: Any) -> None:
    """Install the plugin; does nothing where it is there."""
    from distributed.diagnostics.plugin import SchedulerPlugin  # noqa: PLC0415

    plugin = type("OncePlugin", (OncePlugin, SchedulerPlugin), {})()
    client_of(executor).register_plugin(plugin, name=OncePlugin.name)
