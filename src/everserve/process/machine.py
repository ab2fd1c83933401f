"""What a machine and its limits allow, compared with a number of connections: ``everserve doctor``.

Each finding is read from the system as it is, and says what to change, and how.
"""

from __future__ import annotations

import ssl
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

if sys.platform != "win32":
    import resource

__all__ = ["Finding", "Machine"]

_SHARE = 0.8
"""The part of the descriptors that connections may have, as in ``defaults``."""

_PER_FIBER = 7_000
"""Bytes of a connection that waits in ``handle()``: some 70 MB for 10,000."""

_RMEM = 8 << 20
"""Bytes of a buffer that holds some ten thousand datagrams while the loop is busy."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One row: what was looked at, what it is, and what to change; ``advice`` is empty if nothing."""

    name: str
    value: str
    advice: str = ""


class Machine:
    """This machine. ``root`` is where /proc and /sys are, ``limit(name)`` the soft and the hard limit.

    A limit of -1 is none. What the system does not say is left out.
    """

    def __init__(
        self, *, root: Path = Path("/"), limit: Callable[[str], tuple[int, int]] | None = None
    ) -> None:
        self._root = root
        self._limit = limit or _limit

    def examine(self, connections: int) -> list[Finding]:
        """All findings for a server of that many connections."""
        return [
            self._library(),
            *self._descriptors(connections),
            *self._queues(connections),
            *self._buffers(),
            *self._ports(connections),
            *self._memory(connections),
            *self._threads(connections),
        ]

    # -- each ------------------------------------------------------------------------------------

    def _library(self) -> Finding:
        modern = ssl.OPENSSL_VERSION_INFO >= (3, 0)
        advice = "" if modern else "its support has ended: take a Python with OpenSSL 3 or newer"
        return Finding("TLS library", ssl.OPENSSL_VERSION, advice)

    def _descriptors(self, connections: int) -> Iterator[Finding]:
        wanted = int(connections / _SHARE) + 1
        soft, hard = self._limit("NOFILE")
        advice = ""
        if 0 <= hard < wanted:
            advice = f"LimitNOFILE={wanted}, or 'hard nofile {wanted}' in /etc/security/limits.conf"
        yield Finding("descriptors", f"{_number(soft)} soft, {_number(hard)} hard", advice)
        for name in ("fs.nr_open", "fs.file-max"):
            yield from self._at_least(name, wanted)

    def _queues(self, connections: int) -> Iterator[Finding]:
        backlog = min(65_535, max(4_096, connections // 10))
        yield from self._at_least("net.core.somaxconn", backlog)
        yield from self._at_least("net.ipv4.tcp_max_syn_backlog", backlog)
        cookies = self._sysctl("net.ipv4.tcp_syncookies")
        if cookies is not None:
            advice = (
                "" if cookies != "0" else "sysctl net.ipv4.tcp_syncookies=1: a flood would fill it"
            )
            yield Finding("net.ipv4.tcp_syncookies", cookies, advice)

    def _buffers(self) -> Iterator[Finding]:
        """Of datagrams: what comes while the loop is busy waits in them, or is lost."""
        for name in ("net.core.rmem_default", "net.core.rmem_max"):
            value = self._sysctl(name)
            if value is not None:
                advice = f"for UDP: sysctl {name}={_RMEM}" if int(value) < _RMEM else ""
                yield Finding(name, value, advice)

    def _ports(self, connections: int) -> Iterator[Finding]:
        """Of connections that the server makes itself, each to one address."""
        value = self._sysctl("net.ipv4.ip_local_port_range")
        if value is None:
            return
        low, high = map(int, value.split())
        advice = ""
        if high - low + 1 < connections:
            advice = (
                "for a proxy, or handlers that connect elsewhere:"
                " sysctl net.ipv4.ip_local_port_range='1024 65535', and several addresses"
            )
        yield Finding("net.ipv4.ip_local_port_range", f"{low} {high}", advice)

    def _memory(self, connections: int) -> Iterator[Finding]:
        there = self._available()
        if there is not None:
            needed = connections * _PER_FIBER
            advice = f"fibers need {needed >> 20} MiB: fewer connections" if needed > there else ""
            yield Finding("memory available", f"{there >> 20} MiB", advice)
        overcommit = self._sysctl("vm.overcommit_memory")
        if overcommit is not None:
            advice = "forks may fail with memory free: sysctl vm.overcommit_memory=0"
            yield Finding("vm.overcommit_memory", overcommit, advice if overcommit == "2" else "")
        pages = self._read("sys/kernel/mm/transparent_hugepage/enabled")
        if pages is not None:
            chosen = pages.partition("[")[2].partition("]")[0]
            advice = "a touched stack takes 2 MiB: write 'madvise' to transparent_hugepage/enabled"
            yield Finding("transparent huge pages", chosen, advice if chosen == "always" else "")

    def _threads(self, connections: int) -> Iterator[Finding]:
        soft, hard = self._limit("NPROC")
        few = 0 <= hard < connections
        advice = f"for threads and forks: LimitNPROC={connections * 2}" if few else ""
        yield Finding(
            "processes and threads", f"{_number(soft)} soft, {_number(hard)} hard", advice
        )
        for name in ("kernel.threads-max", "kernel.pid_max", "vm.max_map_count"):
            yield from self._at_least(name, 2 * connections, "for threads and forks: ")
        stack, _ = self._limit("STACK")
        yield Finding("stack of a thread", "unlimited" if stack < 0 else f"{stack >> 10} KiB")

    # -- reading ---------------------------------------------------------------------------------

    def _at_least(self, name: str, wanted: int, who: str = "") -> Iterator[Finding]:
        value = self._sysctl(name)
        if value is not None:
            few = int(value) < wanted
            yield Finding(name, value, f"{who}sysctl {name}={wanted}" if few else "")

    def _available(self) -> int | None:
        """Bytes; those of the control group, if it has fewer."""
        text = self._read("proc/meminfo") or ""
        lines = [line.split() for line in text.splitlines() if line.startswith("MemAvailable:")]
        group = self._read("sys/fs/cgroup/memory.max")
        found = [int(words[1]) << 10 for words in lines]
        found += [int(group)] if group is not None and group.isdecimal() else []
        return min(found, default=None)

    def _sysctl(self, name: str) -> str | None:
        return self._read(f"proc/sys/{name.replace('.', '/')}")

    def _read(self, path: str) -> str | None:
        try:
            return (self._root / path).read_text().strip()
        except OSError:
            return None


def _limit(name: str) -> tuple[int, int]:
    if sys.platform == "win32":
        return -1, -1
    soft, hard = resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))
    return tuple(-1 if value == resource.RLIM_INFINITY else value for value in (soft, hard))  # type: ignore[return-value]


def _number(limit: int) -> str:
    return "unlimited" if limit < 0 else str(limit)
