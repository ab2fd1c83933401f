"""The sockets that a service manager has opened for this process: ``systemd:NAME``.

systemd starts a service with its listeners as descriptors from 3 on, and says in the environment which
they are (sd_listen_fds(3)). ``serving`` asks here for those of a name; ``inheriting`` takes them over.
"""

from __future__ import annotations

import os

from everserve.errors import AddressError

__all__ = ["passed"]

_FIRST = 3
"""The first descriptor that is passed (SD_LISTEN_FDS_START)."""

_UNNAMED = "unknown"
"""The name of those that were passed without one (sd_listen_fds_with_names(3))."""


def passed(name: str) -> list[int]:
    """The descriptors that the service manager has passed under ``name``, at least one.

    They are the caller's. Raises ``AddressError``, which names those that there are.
    """
    names = _names()
    found = [_FIRST + place for place, own in enumerate(names) if own == name]
    if not found:
        raise AddressError(f"systemd:{name}: {_explain(names)}")
    return found


def _names() -> list[str]:
    """The names of all passed descriptors, in their order; empty where they are of another process."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = os.environ.get("LISTEN_FDS", "")
    number = int(count) if count.isdecimal() else 0
    given = os.environ.get("LISTEN_FDNAMES", "")
    names = given.split(":") if given else []
    return [name or _UNNAMED for name in (names + [""] * number)[:number]]


def _explain(names: list[str]) -> str:
    if not names:
        return (
            "the service manager has passed no sockets to this process: start it by a .socket unit,"
            " or with systemd-socket-activate"
        )
    there = ", ".join(f"systemd:{name}" for name in dict.fromkeys(names))
    return f"the service manager has passed no socket of this name; there is {there}"
