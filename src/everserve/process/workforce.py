"""How many workers there are, and when one is replaced: the options of ``serve(workers=...)``."""

from __future__ import annotations

import os
import random
import socket
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from everserve.errors import OptionError
from everserve.server.balance import PLACES

__all__ = ["MOST_WORKERS", "Workers", "Workforce", "make_workforce", "read_workers"]

Workers: TypeAlias = int | Literal["auto"]

MOST_WORKERS = PLACES // 4
"""As many again may drain while their successors serve."""

_JITTER = 0.1
"""The part of ``max_requests`` that differs from worker to worker: they do not end together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workforce:
    """The options, checked. ``workers`` processes; times in seconds, memory in bytes.

    A worker whose accept loop does not turn for ``worker_timeout`` is killed. One that has accepted
    ``max_requests``, and up to a tenth more, or that has ``max_memory`` in use, drains. ``None`` is no
    limit.
    """

    workers: int
    worker_timeout: float | None = 30.0
    max_requests: int | None = None
    max_memory: int | None = None

    def __post_init__(self) -> None:
        _check("worker_timeout", self.worker_timeout, "seconds, from 2 up", 2, (int, float))
        _check("max_requests", self.max_requests, "a number from 1 up", 1, (int,))
        _check("max_memory", self.max_memory, "bytes, from 1 up", 1, (int,))

    @property
    def interval(self) -> float:
        """Seconds between two beats of a worker: not less than one, so that an idle one sleeps."""
        if self.max_requests is not None or self.max_memory is not None:
            return 1.0
        return 10.0 if self.worker_timeout is None else min(10.0, max(1.0, self.worker_timeout / 4))

    def requests_of_one(self) -> float:
        """The requests after which one worker is replaced."""
        if self.max_requests is None:
            return float("inf")
        return self.max_requests + random.randint(0, int(_JITTER * self.max_requests))


def make_workforce(
    workers: Workers | None,
    worker_timeout: float | None,
    max_requests: int | None,
    max_memory: int | None,
) -> Workforce | None:
    """The options of ``serve``; ``None`` without workers. Raises ``OptionError``."""
    if workers is not None:
        return Workforce(
            workers=read_workers(workers),
            worker_timeout=worker_timeout,
            max_requests=max_requests,
            max_memory=max_memory,
        )
    if max_requests is not None or max_memory is not None:
        raise OptionError("max_requests and max_memory are about workers: say how many there are")
    return None


def read_workers(value: Any) -> int:
    """The number of workers; ``"auto"``: one for each core. Raises ``OptionError``."""
    wanted = f"'auto', or a number from 1 to {MOST_WORKERS}"
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise OptionError(f"workers = {value!r}: expected {wanted}")
    if not _can_have_workers():
        raise OptionError(
            f"workers = {value!r}: this system cannot share listeners: it needs Linux"
        )
    if value == "auto":
        return min(MOST_WORKERS, len(os.sched_getaffinity(0)))
    if not isinstance(value, int) or not 1 <= value <= MOST_WORKERS:
        raise OptionError(f"workers = {value!r}: expected {wanted}")
    return value


def _can_have_workers() -> bool:
    return hasattr(os, "fork") and hasattr(os, "pidfd_open") and hasattr(socket, "SOCK_SEQPACKET")


def _check(name: str, value: Any, wanted: str, least: int, kinds: tuple[type, ...]) -> None:
    if value is None:
        return
    if type(value) not in kinds or not least <= value < float("inf"):
        raise OptionError(f"{name} = {value!r}: expected {wanted}")
