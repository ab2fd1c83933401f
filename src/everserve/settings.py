"""The settings of a server, read from those of its attributes that are options.

A subclass written for the standard library may have had its own ``tls``, ``access`` or ``overload`` for
years. So a public attribute counts as an option only if its value has exactly the option's type.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from math import inf
from operator import attrgetter
from time import monotonic
from typing import Any, TypeVar

from everserve.admission.access import AccessRules, Networks
from everserve.admission.context import Step
from everserve.admission.control import POLICIES, Overload, OverloadPolicy
from everserve.admission.steps import HANDSHAKE_TIMEOUT, PROXY_TIMEOUT, STEPS, read_proxy_header
from everserve.executors.plan import is_executor
from everserve.reading import attribute_of
from everserve.sockets.tls import TLS

__all__ = [
    "LAG",
    "NAMES",
    "PEER_QUEUE_DROPS",
    "TYPES",
    "LoopFactory",
    "Settings",
    "SettingsReader",
    "brings_defaults",
]

_NO_NETWORKS = Networks()

PEER_QUEUE_DROPS = ("newest", "oldest")
"""The values of ``peer_queue_drops``."""


@dataclass(frozen=True, slots=True)
class LoopFactory:
    """Makes the loop of an ``Async...Server``: ``LoopFactory(uvloop.new_event_loop)``.

    ``new()`` returns an ``asyncio.AbstractEventLoop``, which the server closes at the end.
    """

    new: Callable[[], Any]


@dataclass(slots=True)
class Settings:
    """All options that are read while a server runs, with their defaults. Times are in seconds.

    ``is_entered``: admission control notes each connection; ``has_limits``: it has something to check;
    ``counts_alone``: nothing but how much is in progress, as ``serve`` sets it; ``may_wait``: above one
    of them the next connection waits in the kernel's queue; ``handshakes_first``: each connection
    begins with a TLS handshake; ``header_first``: with a PROXY header, which names the client;
    ``takes_steps``: there is something for the steps of admission to do; ``deadlines_alone``: nothing
    but deadlines that all connections may share. ``listener_tls``: the handshake of a listener that
    the program has made an ``ssl.SSLSocket``.
    """

    max_connections: int | None = None
    max_connections_per_peer: int | None = None
    accept_rate_per_peer: float | None = None
    accept_rate: float | None = None
    accept_burst: float | None = None
    max_handshakes: int | None = None
    overload: Overload = "wait"
    overload_message: bytes = b""
    access: AccessRules | None = None
    admission_steps: tuple[Step, ...] = STEPS
    proxy_protocol: bool = False
    trusted_proxies: Networks = _NO_NETWORKS
    proxy_timeout: float = PROXY_TIMEOUT
    tls: TLS | None = None
    implicit_tls: bool = True
    tls_reload_interval: float | None = None
    handshake_timeout: float = HANDSHAKE_TIMEOUT
    idle_timeout: float | None = None
    request_timeout: float | None = None
    write_timeout: float | None = None
    min_receive_rate: float | None = None
    max_line: int | None = None
    coalesce_writes: bool = False
    max_workers: int = 64
    worker_idle_timeout: float = 10.0
    max_children: int = 40
    stall_threshold: float | None = 0.1
    shutdown_grace: float = 5.0
    peer_queue: int = 256
    peer_queue_drops: str = "newest"
    reply_budget: float | None = None
    ordered_peers: bool = True
    loop_factory: LoopFactory | None = None
    executor: Any = None
    daemon_threads: bool = False
    block_on_close: bool = True
    is_entered: bool = field(init=False, default=False)
    has_limits: bool = field(init=False, default=False)
    counts_alone: bool = field(init=False, default=False)
    may_wait: bool = field(init=False, default=False)
    handshakes_first: bool = field(init=False, default=False)
    header_first: bool = field(init=False, default=False)
    takes_steps: bool = field(init=False, default=False)
    listener_tls: TLS | None = field(init=False, default=None)
    deadlines_alone: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        counts = (self.max_connections, self.accept_rate, self.max_handshakes)
        is_counted = any(limit is not None for limit in counts)
        self.may_wait = is_counted and self.overload == "wait"
        self.header_first = self.proxy_protocol and read_proxy_header in self.admission_steps
        about_peers = (
            self.header_first
            or self.access is not None
            or self.max_connections_per_peer is not None
            or self.accept_rate_per_peer is not None
        )
        self.has_limits = is_counted or about_peers
        self.counts_alone = self.accept_rate is None and not about_peers
        self.handshakes_first = self.tls is not None and self.implicit_tls
        steps = (
            self.tls is not None
            or self.proxy_protocol
            or self.request_timeout is not None
            or self.min_receive_rate is not None
            or self.overload == "shed-idle"
            or self.admission_steps is not STEPS
        )
        shared = self.idle_timeout is not None or self.write_timeout is not None
        self.is_entered = (
            self.handshakes_first
            or self.max_connections_per_peer is not None
            or self.overload == "shed-idle"
        )
        self.takes_steps = steps or shared
        self.deadlines_alone = shared and not steps


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value < inf


def _is_grace(value: Any) -> bool:
    return _is_number(value) or (type(value) in (int, float) and value == 0)


def _is_optional_number(value: Any) -> bool:
    return value is None or _is_number(value)


def _is_count(value: Any) -> bool:
    return type(value) is int and value > 0


def _is_optional_count(value: Any) -> bool:
    return value is None or _is_count(value)


def _is_flag(value: Any) -> bool:
    return type(value) is bool


def _is_policy(value: Any) -> bool:
    return (type(value) is str and value in POLICIES) or isinstance(value, OverloadPolicy)


def _are_steps(value: Any) -> bool:
    return type(value) is tuple and all(map(callable, value))


TYPES: Mapping[str, Callable[[Any], bool]] = {
    "max_connections": _is_optional_count,
    "max_connections_per_peer": _is_optional_count,
    "accept_rate_per_peer": _is_optional_number,
    "accept_rate": _is_optional_number,
    "accept_burst": _is_optional_number,
    "max_handshakes": _is_optional_count,
    "overload": _is_policy,
    "overload_message": lambda value: type(value) is bytes,
    "access": lambda value: value is None or isinstance(value, AccessRules),
    "admission_steps": _are_steps,
    "proxy_protocol": _is_flag,
    "trusted_proxies": lambda value: isinstance(value, Networks),
    "proxy_timeout": _is_number,
    "tls": lambda value: isinstance(value, TLS),
    "implicit_tls": _is_flag,
    "tls_reload_interval": _is_optional_number,
    "handshake_timeout": _is_number,
    "idle_timeout": _is_optional_number,
    "request_timeout": _is_optional_number,
    "write_timeout": _is_optional_number,
    "min_receive_rate": _is_optional_number,
    "max_line": _is_optional_count,
    "coalesce_writes": _is_flag,
    "max_workers": _is_count,
    "worker_idle_timeout": _is_number,
    "peer_queue": _is_count,
    "peer_queue_drops": lambda value: type(value) is str and value in PEER_QUEUE_DROPS,
    "ordered_peers": _is_flag,
    "executor": lambda value: value is None or is_executor(value),
    "reply_budget": _is_optional_number,
    "stall_threshold": _is_optional_number,
    "shutdown_grace": _is_grace,
    "loop_factory": lambda value: value is None or isinstance(value, LoopFactory),
}
"""Checks for the exact type and range of each option, except the standard library's attributes."""

_STANDARD: Mapping[str, Callable[[Any], Any]] = {
    "max_children": int,
    "daemon_threads": bool,
    "block_on_close": bool,
}
"""Attributes of the standard library, with the conversion that it applies to any value."""

LAG = 0.01
"""Seconds between two readings of the attributes, unless one of the server is set."""

NAMES = (*TYPES, *_STANDARD)
_DEFAULTS = {one.name: getattr(Settings(), one.name) for one in fields(Settings)}
_MISSING = object()


_BRINGING: set[type] = set()
"""The classes whose attributes are defaults of options."""

ClassT = TypeVar("ClassT", bound=type)


def brings_defaults(kind: ClassT) -> ClassT:
    """Mark a class: its attributes are defaults of options, and not set by a program."""
    _BRINGING.add(kind)
    return kind


class SettingsReader:
    """Reads the settings from a server's attributes. An attribute that is set counts at once.

    Reads only the options that the class has, since those of another strategy have no meaning. Does
    not keep the server alive. ``values`` are the result of the last ``read()``; ``changed``: an
    attribute was set since; ``readings`` counts how often the attributes were read.
    """

    def __init__(self, server: object) -> None:
        self._server = weakref.ref(server)
        self._raw: tuple[Any, ...] = ()
        own = vars(server)
        self._names = [name for name in NAMES if hasattr(type(server), name) or name in own]
        self._read_all = _getter(self._names)
        self._fresh_until = 0.0
        self.readings = 0
        self.changed = False
        self._listener_tls: TLS | None = None
        self.values = Settings()
        self.read()

    def reads(self, name: str) -> bool:
        """True if the server has the option ``name``."""
        return name in self._names

    def use_listener_tls(self, tls: TLS | None) -> None:
        """Have each connection begin with that handshake, if the server has no ``tls`` of its own."""
        self._listener_tls = tls
        self._raw = ()
        self.changed = True
        self.read()

    def is_set(self, name: str) -> bool:
        """True if the program has set the option ``name``: it is not the default of a mix-in."""
        server = self._server()
        if server is None or name in vars(server):
            return server is not None
        owner = next((kind for kind in type(server).__mro__ if name in vars(kind)), object)
        return owner is not object and owner not in _BRINGING

    def note_change(self) -> None:
        """Note that an attribute was set: the next call of ``read`` reads all attributes."""
        self.changed = True

    def read(self) -> Settings:
        """The current settings. A change that is not noted (of a class) counts after ``LAG``."""
        now = monotonic()
        if now < self._fresh_until and not self.changed:  # spares most connections a full read
            return self.values
        self.readings += 1
        self.changed = False  # before reading, so that a change meanwhile is not missed
        self._fresh_until = now + LAG
        server = self._server()
        try:
            raw = self._read_all(server)
        except Exception:  # an attribute was deleted, or a property fails
            raw = self._read_each(server)
        try:
            unchanged = raw == self._raw  # by identity first: most values are the same objects
        except Exception:  # the program's own value, which cannot be compared
            unchanged = False
        if not unchanged:
            self._raw = raw
            taken = {n: _take(n, value) for n, value in zip(self._names, raw, strict=True)}
            tls = self._listener_tls
            if tls is not None and self.reads("admission_steps"):
                taken |= {"tls": taken.get("tls") or tls, "implicit_tls": True}
            values = Settings(**taken)
            values.listener_tls = tls
            self.values = values
        return self.values

    def _read_each(self, server: object) -> tuple[Any, ...]:
        if server is None:
            return self._raw
        return tuple(attribute_of(server, name, _MISSING) for name in self._names)


def _getter(names: Sequence[str]) -> Callable[[Any], tuple[Any, ...]]:
    """A function that reads all those attributes at once, and raises if one is missing."""
    if len(names) < 2:  # for one name, attrgetter returns the bare value
        return lambda server: tuple(getattr(server, name) for name in names)
    return attrgetter(*names)


def _take(name: str, value: Any) -> Any:
    """The value of an option, or its default if the attribute is something else."""
    if value is _MISSING:
        return _DEFAULTS[name]
    if name in TYPES:
        return value if TYPES[name](value) else _DEFAULTS[name]
    try:
        return _STANDARD[name](value)
    except Exception:
        return _DEFAULTS[name]
