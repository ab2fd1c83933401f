"""The file that has the number of the server process, for scripts and init systems."""

from __future__ import annotations

import os
from contextlib import suppress

from everserve.errors import OptionError

__all__ = ["PidFile", "check_place"]


class PidFile:
    """Written with the number of this process, removed or emptied at its end.

    A file of a process that is gone is replaced. *Ownership*: the file is ours while it has our number.
    """

    def __init__(self, path: str, *, replaces: bool = False) -> None:
        """Write it. Raises ``OSError``, and ``OptionError`` if another process that lives has it.

        ``replaces``: not then, as this process is to take its place.
        """
        self.path = os.path.abspath(path)
        other = self._read()
        if not replaces and other not in (None, os.getpid()) and _lives(other or 0):
            raise OptionError(f"pid file {path!r}: process {other} has it, and is running")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)
        with open(os.open(path, flags, 0o644), "w") as file:
            file.write(f"{os.getpid()}\n")

    def remove(self) -> None:
        """Remove the file, or empty it in a folder of another user; not that of another process."""
        if self._read() != os.getpid():
            return
        try:
            os.unlink(self.path)
        except OSError:
            with suppress(OSError):
                os.truncate(self.path, 0)

    def _read(self) -> int | None:
        try:
            with open(self.path) as file:
                text = file.read(32).strip()
        except (OSError, UnicodeDecodeError):
            return None
        return int(text) if text.isascii() and text.isdecimal() and int(text) > 0 else None


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it is another user's
        return True
    return True


def check_place(path: str) -> None:
    """Raise ``OptionError`` if no pid file could be written there."""
    folder = os.path.dirname(os.path.abspath(path))
    if not os.access(folder, os.W_OK | os.X_OK):
        why = "no permission to write there" if os.path.isdir(folder) else "there is no such folder"
        raise OptionError(f"pid file {path!r}: {why}")
