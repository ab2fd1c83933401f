"""What a service manager is told of this process: sd_notify(3), without its library.

``run`` calls it as the servers begin, reload and stop, and for the watchdog. systemd, and others that
speak its protocol, name a socket in the environment; without it nothing is sent.
"""

from __future__ import annotations

import os
import socket
from time import CLOCK_MONOTONIC, clock_gettime_ns, monotonic

__all__ = ["ServiceManager", "leave_to_parent"]

_SIGNS = 4
"""Signs of life in one period of the watchdog: a sign that is late once must not end the process."""


class ServiceManager:
    """The one that has started this process, as the environment names it.

    ``next_time`` (monotonic) is when the watchdog is to hear of us next, ``None`` without a watchdog.
    It never raises for a manager that cannot be reached: the servers are to go on.
    """

    def __init__(self) -> None:
        self._address = _address()
        period = _watchdog_period() if self._address else None
        self._interval = None if period is None else period / _SIGNS
        self.next_time = None if self._interval is None else monotonic() + self._interval

    def ready(self, status: str) -> None:
        """All servers accept; also at the end of a reload."""
        self._send("READY=1", f"STATUS={_line(status)}")

    def reloading(self) -> None:
        """A reload begins. ``ready`` tells its end."""
        now = clock_gettime_ns(CLOCK_MONOTONIC) // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={now}", "STATUS=reloading")

    def stopping(self, seconds: float) -> None:
        """The process ends within ``seconds``; the manager is to wait so long, if they are finite."""
        lines = ["STOPPING=1", "STATUS=draining"]
        if seconds < float("inf"):
            lines.append(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")
        self._send(*lines)

    def is_due(self) -> bool:
        """True if the watchdog waits for ``keep_alive``."""
        return self.next_time is not None and monotonic() >= self.next_time

    def keep_alive(self, responds: bool) -> None:
        """Give the watchdog a sign of life, if the servers respond; set the time of the next one."""
        if self._interval is not None:
            self.next_time = monotonic() + self._interval
        if responds:
            self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.sendto("\n".join(lines).encode(errors="replace"), self._address)
        except OSError:
            pass


def leave_to_parent() -> None:
    """In a child of the process that was started: what it does is not for the manager."""
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
        os.environ.pop(name, None)


def _address() -> str:
    """The socket of the manager; empty if there is none. ``@`` begins an abstract name."""
    name = os.environ.get("NOTIFY_SOCKET", "")
    if name.startswith("@"):
        return "\0" + name[1:]
    return name if name.startswith("/") else ""


def _watchdog_period() -> float | None:
    """Seconds after which a silent process is ended (sd_watchdog_enabled(3))."""
    period = os.environ.get("WATCHDOG_USEC", "")
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(period) / 1e6 if period.isdecimal() and int(period) else None


def _line(text: str) -> str:
    return text.replace("\n", " ")
