"""The options of a server: each declared once, with its unit, its check and what it does.

``serve`` makes class attributes of them; the command line makes its options of this table. The defaults
stand where they act: on the classes.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from everserve.admission.access import Networks
from everserve.errors import OptionError
from everserve.sockets.tls import TLS

__all__ = ["OPTIONS", "Option", "check"]


@dataclass(frozen=True, slots=True)
class Option:
    """One option. ``read`` checks a value, or a text of the command line, and returns it.

    ``is_flag``: it is on or off; ``is_text``: a text can say it, so that the command line has it.
    """

    name: str
    read: Callable[[Any], Any]
    wanted: str
    help: str
    is_flag: bool = False
    is_text: bool = True

    def check(self, value: Any) -> Any:
        """``value`` as the server takes it. Raises ``OptionError``, which says what would do."""
        try:
            return self.read(value)
        except OptionError:
            raise
        except (TypeError, ValueError):
            raise OptionError(f"{self.name} = {value!r}: wants {self.wanted}") from None


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


def _rate(value: Any) -> float:
    return _seconds(value)


def _message(value: Any) -> bytes:
    """Bytes as they are; of a text, escapes such as ``\\r\\n`` mean what they say."""
    if isinstance(value, bytes):
        return value
    return str(value).encode().decode("unicode_escape").encode("latin-1")


def _networks(value: Any) -> Networks:
    if isinstance(value, Networks):
        return value
    return Networks(value.split(",") if isinstance(value, str) else value)


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


def _option(name: str, read: Callable[[Any], Any], wanted: str, text: str) -> Option:
    return Option(name, read, wanted, text, is_flag=read is _flag)


_YES_NO = "True or False"
_SECONDS = "seconds, more than 0"

OPTIONS: Mapping[str, Option] = {
    option.name: option
    for option in (
        _option("max_workers", _count(1), "a number from 1 up", "pool: threads at the most"),
        _option(
            "max_connections",
            _count(1),
            "a number from 1 up",
            "connections in progress; of a pool, default as many as threads",
        ),
        _option(
            "worker_idle_timeout",
            _seconds,
            "seconds, more than 0",
            "pool: seconds after which a thread without work goes",
        ),
        _option("max_children", _count(1), "a number from 1 up", "forks: processes at the most"),
        _option(
            "request_queue_size",
            _count(0),
            "a number from 0 up",
            "connections that the kernel queues; default the system's largest",
        ),
        _option("allow_reuse_address", _flag, _YES_NO, "bind although old connections linger"),
        _option("allow_reuse_port", _flag, _YES_NO, "share the port with other processes"),
        _option("dual_stack", _flag, _YES_NO, "all interfaces means IPv6 and IPv4"),
        _option("disable_nagle_algorithm", _flag, _YES_NO, "send small writes at once"),
        _option(
            "max_packet_size",
            _count(1),
            "bytes, from 1 up",
            "bytes to receive of a datagram; what is longer is cut, and told",
        ),
        _option(
            "socket_mode", _mode, "permission bits such as 0o660", "mode of a Unix socket file"
        ),
    )
}


def check(options: Mapping[str, Any], server_class: type) -> dict[str, Any]:
    """The checked values of ``options``, to be class attributes of a ``server_class``.

    Raises ``OptionError`` for a value that will not do, and for a name that does not exist, or that
    this kind of server lacks.
    """
    checked = {}
    for name, value in options.items():
        option = OPTIONS.get(name)
        if option is None:
            raise OptionError(f"there is no option {name!r}{_suggest(name)}")
        if not hasattr(server_class, name):
            raise OptionError(f"{name} has no meaning for a {server_class.__name__}")
        checked[name] = option.check(value)
    return checked


def _suggest(name: str) -> str:
    close = get_close_matches(name, OPTIONS, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(OPTIONS)}"
