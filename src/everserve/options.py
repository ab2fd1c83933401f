"""The options of a server: each is declared once, with its unit, default, check and description.

``serve`` sets them as class attributes; the command line builds its own options from this table.
``settings`` defines which attribute values count as options.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any

from everserve.admission.access import AccessRules, Networks
from everserve.admission.control import POLICIES, Overload, OverloadPolicy
from everserve.errors import EverserveError, OptionError
from everserve.executors.plan import WANTED, check_executor
from everserve.mistakes import intended
from everserve.settings import PEER_QUEUE_DROPS, TYPES, LoopFactory, Settings
from everserve.sockets.datagrams import LARGEST
from everserve.sockets.tls import TLS

__all__ = ["GROUPS", "OPTIONS", "Option", "attribute_fault", "check", "check_grace"]

_BIND_DEFAULTS = {
    "request_queue_size": socket.SOMAXCONN,
    "allow_reuse_address": False,
    "allow_reuse_port": False,
    "dual_stack": False,
    "disable_nagle_algorithm": False,
    "keep_alive": None,
    "tcp_user_timeout": None,
    "max_packet_size": LARGEST,
    "receive_buffer": None,
    "broadcast": False,
    "multicast_interface": None,
    "socket_mode": None,
}
GROUPS: Mapping[str, tuple[str, ...]] = {
    "Requests": (
        "max_workers",
        "worker_idle_timeout",
        "executor",
        "ordered_peers",
        "peer_queue",
        "peer_queue_drops",
        "reply_budget",
        "max_children",
        "stall_threshold",
        "shutdown_grace",
        "coalesce_writes",
        "daemon_threads",
        "block_on_close",
        "admission_steps",
    ),
    "Network": (
        "request_queue_size",
        "allow_reuse_address",
        "allow_reuse_port",
        "dual_stack",
        "disable_nagle_algorithm",
        "max_packet_size",
        "receive_buffer",
        "broadcast",
        "multicast_interface",
        "socket_mode",
        "proxy_protocol",
        "trusted_proxies",
        "proxy_timeout",
    ),
    "Limits": (),
    "TLS": ("tls", "implicit_tls", "tls_reload_interval", "handshake_timeout", "max_handshakes"),
    "Workers": (),
    "Logging": (),
    "Process": (),
}
"""The headings of the help, in order, and the options below them: all others are limits."""

_DEFAULTS = {one.name: getattr(Settings(), one.name) for one in fields(Settings)} | _BIND_DEFAULTS


@dataclass(frozen=True, slots=True)
class Option:
    """One option. ``read`` checks a value, or a text of the command line, and returns it.

    ``default`` is the default of the classes. ``is_flag``: the option is on or off. ``is_text``: it can
    be given as text, so the command line has it. ``of_streams``: it has no meaning for datagrams.
    """

    name: str
    read: Callable[[Any], Any]
    wanted: str
    help: str
    is_flag: bool = False
    is_text: bool = True
    of_streams: bool = False

    @property
    def group(self) -> str:
        """The heading of the help below which it stands."""
        return next((group for group, names in GROUPS.items() if self.name in names), "Limits")

    @property
    def default(self) -> Any:
        """The value if none is set."""
        return _DEFAULTS[self.name]

    @property
    def reads_text(self) -> bool:
        """True if a text is a value in code too: elsewhere it would hide a mistake (``"5"`` for 5)."""
        return self.read in _OF_TEXTS or isinstance(self.default, str)

    @property
    def may_be_none(self) -> bool:
        """True if ``None`` is a value: there is no limit, or the system chooses."""
        is_type = TYPES.get(self.name)
        return self.default is None or (is_type is not None and is_type(None))

    def check(self, value: Any) -> Any:
        """``value`` as the server takes it. Raises ``OptionError``, which names the accepted values."""
        try:
            return self.read(value)
        except EverserveError:  # an OptionError or a TLSConfigError: its message explains the fault
            raise
        except (TypeError, ValueError):
            raise OptionError(f"{self.name} = {value!r}: expected {self.wanted}") from None


def _count(least: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        number = int(value)
        if isinstance(value, bool) or number < least or number != float(value):
            raise ValueError
        return number

    return read


def _seconds(value: Any) -> float:
    number = float(value)
    if isinstance(value, bool) or not 0 < number < float("inf"):
        raise ValueError
    return number


def _probes(value: Any) -> float:
    """As Linux takes them for TCP_KEEPIDLE (tcp(7))."""
    number = _seconds(value)
    if not 1 <= number <= 32_767:
        raise ValueError
    return number


def _grace(value: Any) -> float:
    number = float(value)
    if isinstance(value, bool) or not 0 <= number < float("inf"):
        raise ValueError
    return number


def _rate(value: Any) -> float:
    return _seconds(value)


def _message(value: Any) -> bytes:
    """Bytes unchanged; in a text, escapes such as ``\\r\\n`` are decoded."""
    if isinstance(value, bytes):
        return value
    return str(value).encode().decode("unicode_escape").encode("latin-1")


def _tls(value: Any) -> Any:
    if value is None or isinstance(value, TLS):
        return value
    if isinstance(value, ssl.SSLContext):
        return TLS.of(value)
    raise TypeError


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _mode(value: Any) -> int:
    mode = int(value, 8) if isinstance(value, str) else int(value)
    if not 0 <= mode <= 0o777:
        raise ValueError
    return mode


def _interface(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _choice(values: tuple[str, ...]) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in values:
            raise ValueError
        chosen: str = value
        return chosen

    return read


def _policy(value: Any) -> Overload:
    """A function is a custom policy."""
    if isinstance(value, OverloadPolicy) or value in POLICIES:
        policy: Overload = value
        return policy
    if callable(value):
        return OverloadPolicy(value)
    raise TypeError


def _steps(value: Any) -> tuple[Any, ...]:
    steps = tuple(value)
    if not all(callable(step) for step in steps):
        raise TypeError
    return steps


def _factory(value: Any) -> LoopFactory | None:
    if value is None or isinstance(value, LoopFactory):
        return value
    if not callable(value):
        raise TypeError
    return LoopFactory(value)


def _option(name: str, read: Callable[[Any], Any], wanted: str, text: str, **more: bool) -> Option:
    return Option(name, read, wanted, text, is_flag=read is _flag, **more)


def _stream_option(name: str, read: Callable[[Any], Any], wanted: str, text: str) -> Option:
    return _option(name, read, wanted, text, of_streams=True)


_OF_TEXTS = (
    _interface,
    _message,
    _mode,
    _policy,
    AccessRules.parse,
    Networks.of,
    check_executor,
)
"""The checks of the options that have a form as text."""

_YES_NO = "True or False"
_SECONDS = "seconds, more than 0"
_NUMBER = "a number from 1 up"

OPTIONS: Mapping[str, Option] = {
    option.name: option
    for option in (
        _option("max_workers", _count(1), _NUMBER, "pool: maximum number of threads"),
        _option(
            "max_connections",
            _count(1),
            _NUMBER,
            "maximum of connections in progress; default of a pool: max_workers",
        ),
        _option(
            "worker_idle_timeout",
            _seconds,
            _SECONDS,
            "pool: seconds after which a thread without work ends",
        ),
        _option(
            "executor",
            check_executor,
            WANTED,
            "where messages are handled, such as processes:4; not for threads, forks and serial",
        ),
        _option(
            "ordered_peers",
            _flag,
            _YES_NO,
            "pool: datagrams of one peer are handled one after the other",
        ),
        _option(
            "peer_queue",
            _count(1),
            "datagrams, from 1 up",
            "datagrams of one peer that may wait for its handler",
        ),
        _option(
            "peer_queue_drops",
            _choice(PEER_QUEUE_DROPS),
            f"one of {', '.join(PEER_QUEUE_DROPS)}",
            f"what is dropped above that: {', '.join(PEER_QUEUE_DROPS)}",
        ),
        _option(
            "reply_budget",
            _rate,
            "a number, more than 0",
            "sessions: times the bytes that a peer sent to reply before it is validated",
        ),
        _option("max_children", _count(1), _NUMBER, "forks: maximum number of processes"),
        _option(
            "stall_threshold",
            _seconds,
            _SECONDS,
            "fibers: seconds that a handler may hold the loop before it is reported",
        ),
        _option(
            "shutdown_grace",
            _grace,
            "seconds, from 0 up",
            "fibers: seconds that requests in progress have after shutdown()",
        ),
        _option(
            "loop_factory",
            _factory,
            "a callable such as uvloop.new_event_loop",
            "asyncio: makes the loop of serve_forever(); default uvloop if installed, or asyncio",
            is_text=False,
        ),
        _stream_option(
            "coalesce_writes",
            _flag,
            _YES_NO,
            "send the bytes that a handler writes when it next waits",
        ),
        _option(
            "daemon_threads", _flag, _YES_NO, "the interpreter may exit while threads still run"
        ),
        _option("block_on_close", _flag, _YES_NO, "closing waits for the requests in progress"),
        _option(
            "request_queue_size",
            _count(0),
            "a number from 0 up",
            "connections that the kernel queues; default the system's largest",
        ),
        _option("allow_reuse_address", _flag, _YES_NO, "bind even if old connections linger"),
        _option("allow_reuse_port", _flag, _YES_NO, "share the port with other processes"),
        _option("dual_stack", _flag, _YES_NO, "all interfaces means IPv6 and IPv4"),
        _option("disable_nagle_algorithm", _flag, _YES_NO, "send small writes at once"),
        _stream_option(
            "keep_alive",
            _probes,
            "seconds, from 1 to 32767",
            "seconds of silence after which TCP asks whether the peer is there; default never",
        ),
        _stream_option(
            "tcp_user_timeout",
            _probes,
            "seconds, from 1 to 32767",
            "seconds that sent bytes may stay unacknowledged; default the system's",
        ),
        _option(
            "max_packet_size",
            _count(1),
            "bytes, from 1 up",
            "bytes to receive of a datagram; a longer one is truncated and reported",
        ),
        _option(
            "receive_buffer",
            _count(1),
            "bytes, from 1 up",
            "bytes that the kernel keeps of datagrams that wait; default the system's",
        ),
        _option("broadcast", _flag, _YES_NO, "datagrams may be sent to broadcast addresses"),
        _option(
            "multicast_interface",
            _interface,
            "the name of an interface, or '' for the system's choice",
            "join the multicast group that is the address, on this interface",
        ),
        _option(
            "socket_mode", _mode, "permission bits such as 0o660", "mode of a Unix socket file"
        ),
        _option(
            "max_connections_per_peer",
            _count(1),
            _NUMBER,
            "connections in progress of one address, or of one /64 of IPv6",
        ),
        _option(
            "accept_rate_per_peer",
            _rate,
            "a number, more than 0",
            "connections a second to admit of one address, or of one /64 of IPv6",
        ),
        _option("accept_rate", _rate, "a number, more than 0", "connections a second to admit"),
        _option(
            "accept_burst",
            _rate,
            "a number, more than 0",
            "connections to admit at once above that rate; default one second's worth",
        ),
        _stream_option("max_handshakes", _count(1), _NUMBER, "TLS handshakes in progress"),
        _option(
            "overload",
            _policy,
            f"one of {', '.join(POLICIES)}, or a callable",
            f"what to do above a limit: {', '.join(POLICIES)}",
        ),
        _stream_option(
            "overload_message",
            _message,
            "bytes, or a text of Latin-1",
            "bytes to send to a refused connection; escapes such as \\r\\n are decoded",
        ),
        _option(
            "access",
            AccessRules.parse,
            "'allow 10.0.0.0/8, deny 10.1.0.0/16', or an AccessRules",
            "networks that may connect: 'allow 10.0.0.0/8, deny 10.1.0.0/16'",
        ),
        _option(
            "proxy_protocol", _flag, _YES_NO, "each connection begins with a PROXY protocol header"
        ),
        _option(
            "trusted_proxies",
            Networks.of,
            "networks such as 10.0.0.0/8,::1",
            "networks of the proxies, comma-separated; other peers are refused",
        ),
        _stream_option(
            "proxy_timeout", _seconds, _SECONDS, "seconds for the PROXY header; default 5"
        ),
        _option(
            "tls",
            _tls,
            "an everserve.TLS or an ssl.SSLContext",
            "certificate and key",
            is_text=False,
        ),
        _stream_option(
            "implicit_tls",
            _flag,
            _YES_NO,
            "TLS from the first byte; otherwise a handler calls start_tls()",
        ),
        _stream_option(
            "tls_reload_interval",
            _seconds,
            _SECONDS,
            "seconds between two checks for renewed certificates",
        ),
        _stream_option(
            "handshake_timeout", _seconds, _SECONDS, "seconds for a handshake; default 10"
        ),
        _stream_option("idle_timeout", _seconds, _SECONDS, "seconds without a byte either way"),
        _option("request_timeout", _seconds, _SECONDS, "seconds for the whole request"),
        _stream_option(
            "write_timeout", _seconds, _SECONDS, "seconds in which a peer must read something"
        ),
        _stream_option(
            "min_receive_rate",
            _rate,
            "bytes a second, more than 0",
            "bytes a second that a peer must send, on average, after 5 s",
        ),
        _stream_option(
            "max_line",
            _count(1),
            "bytes, from 1 up",
            "bytes that a line may have, unless the handler class sets its own",
        ),
        _option("admission_steps", _steps, "callables", "the steps of admission", is_text=False),
    )
}


def check_grace(value: Any) -> float:
    """``value`` as the seconds of a ``grace``; infinity is none. Raises ``OptionError``."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise OptionError(f"grace = {value!r}: expected seconds, a number from 0 up")
    return value


def check(options: Mapping[str, Any], server_class: type) -> dict[str, Any]:
    """The checked values of ``options``, for use as class attributes of a ``server_class``.

    Raises ``OptionError`` for a value that is not accepted, for an unknown name, and for an option
    that has no meaning for this kind of server.
    """
    checked = {}
    for name, value in options.items():
        option = OPTIONS.get(name)
        if option is None:
            raise OptionError(f"there is no option {name!r}{_suggest(name)}")
        if not hasattr(server_class, name) or _is_of_others(option, server_class):
            other = ": it needs fibers, a pool or asyncio" if option.read is check_executor else ""
            raise OptionError(f"{name} has no meaning for a {server_class.__name__}{other}")
        if isinstance(value, str) and not option.reads_text:
            raise OptionError(f"{name} = {value!r}: expected {option.wanted}, not a text")
        checked[name] = None if value is None and option.may_be_none else option.check(value)
    return checked


def attribute_fault(name: str, value: Any) -> str | None:
    """Why the attribute ``name`` of a server is probably meant as an option, and is none.

    The attribute may be the program's own for all that, so this is for a warning.
    """
    if callable(value) or hasattr(type(value), "__get__"):
        return None  # a method, a property
    option = OPTIONS.get(name)
    if option is None:
        meant = intended(name, OPTIONS)
        return None if meant is None else f"{name} is no option: did you mean {meant!r}?"
    if (
        not (value and isinstance(value, str | list | tuple))
        or option.read in (_interface, _message, _policy, check_executor)
        or isinstance(option.default, str)
        or (name in TYPES and TYPES[name](value))
    ):
        return None
    try:
        wanted = option.check(value)
    except EverserveError:
        return None
    if isinstance(wanted, tuple):
        return None  # such as admission_steps, which count as they are, or are the program's own
    if option.read is _mode:
        meant = oct(wanted)
    else:
        is_number = isinstance(wanted, int | float)
        meant = repr(wanted) if is_number else f"an everserve.{type(wanted).__name__}"
    kind = "text" if isinstance(value, str) else "list"
    return f"{name} = {value!r} has no effect: a {kind} is read in serve() alone; give {meant}"


def _is_of_others(option: Option, server_class: type) -> bool:
    """True for an option of streams where datagrams come; a session has an idle time as they have."""
    if not option.of_streams or getattr(server_class, "socket_type", None) != socket.SOCK_DGRAM:
        return False
    return option.name != "idle_timeout" or not hasattr(server_class, "reply_budget")


def _suggest(name: str) -> str:
    close = get_close_matches(name, OPTIONS, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(OPTIONS)}"
