"""Values that a program may have in an attribute with the name of an option.

An option counts only if its value has exactly the option's type; any other value is the program's own.
"""

from __future__ import annotations

import ssl
import threading
from typing import Any

import everserve

SWITCHES = {
    "allow_reuse_address",
    "allow_reuse_port",
    "block_on_close",
    "broadcast",
    "coalesce_writes",
    "daemon_threads",
    "disable_nagle_algorithm",
    "dual_stack",
    "implicit_tls",
    "ordered_peers",
    "proxy_protocol",
}
COUNTS = {
    "max_children",
    "max_connections",
    "max_connections_per_peer",
    "max_handshakes",
    "max_line",
    "max_packet_size",
    "max_workers",
    "peer_queue",
    "receive_buffer",
    "request_queue_size",
    "socket_mode",
}
NUMBERS = {
    "accept_burst",
    "accept_rate_per_peer",
    "accept_rate",
    "handshake_timeout",
    "idle_timeout",
    "keep_alive",
    "min_receive_rate",
    "proxy_timeout",
    "reply_budget",
    "request_timeout",
    "shutdown_grace",
    "stall_threshold",
    "tcp_user_timeout",
    "tls_reload_interval",
    "worker_idle_timeout",
    "write_timeout",
}
OBJECTS = {
    "access": "AccessRules",
    "loop_factory": "LoopFactory",
    "tls": "TLS",
    "trusted_proxies": "Networks",
}
"""By the name of their class in everserve."""

POLICIES = {"wait", "refuse", "reset", "shed-idle"}

TYPED = {
    *SWITCHES,
    *COUNTS,
    *NUMBERS,
    *OBJECTS,
    "admission_steps",
    "executor",
    "overload",
    "overload_message",
    "multicast_interface",
    "peer_queue_drops",
}
"""The options whose type is known here."""


class OwnInt(int):
    """Not exactly a number."""


class OwnStr(str):
    """Not exactly a text."""


class OwnTuple(tuple):  # type: ignore[type-arg]
    """Not exactly a tuple."""


def function(*arguments: Any) -> str:
    return "a function of the program"


VALUES: list[Any] = [
    object(),
    None,
    True,
    False,
    0,
    3,
    -1,
    "x",
    b"x",
    [],
    {},
    (),
    function,
    threading.Lock(),
    threading.Event(),
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER),
    0.0,
    -0.5,
    float("nan"),
    float("inf"),
    OwnInt(-1),
    OwnStr("refuse"),
    OwnTuple([function]),
    object,
]


def is_an_options(name: str, value: Any) -> bool:
    """True if ``value`` has the type of the option ``name``, so that everserve may use it."""
    kind = type(value)
    if name in SWITCHES:
        return kind is bool
    if name in COUNTS:
        return kind is int
    if name in NUMBERS:
        return kind in (int, float) and 0 < value < float("inf")
    if name in OBJECTS:
        return kind is getattr(everserve, OBJECTS[name], None)
    if name == "overload":
        return kind is str and value in POLICIES
    if name == "peer_queue_drops":
        return kind is str and value in ("newest", "oldest")
    return kind is {"admission_steps": tuple, "overload_message": bytes}.get(name)
