"""Who a server process is: the user and the group that it becomes once it has bound.

``everserve run`` opens as root what root alone may open, gives the socket files away, and then calls
``assume``. There is no way back, which is checked.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

from everserve.errors import OptionError

if sys.platform != "win32":
    import grp
    import pwd

__all__ = ["Identity"]


@dataclass(frozen=True, slots=True)
class Identity:
    """A user, a group, and the supplementary groups of the user, all as numbers."""

    user: int
    group: int
    groups: tuple[int, ...] = ()

    @classmethod
    def of(cls, user: str | None, group: str | None) -> Self | None:
        """The one of these names or numbers; ``None`` if both are ``None``.

        Without a group it is that of the user; without a user the process keeps its own. Raises
        ``OptionError`` for a name that the system does not know.
        """
        if user is None and group is None:
            return None
        if sys.platform == "win32":
            raise OptionError("user and group: this system has none to change to")
        number, own, name = os.geteuid(), os.getegid(), None
        if user is not None:
            number, own, name = _find_user(user, has_group=group is not None)
        chosen = own if group is None else _find_group(group)
        groups = () if name is None else tuple(os.getgrouplist(name, chosen))
        return cls(number, chosen, groups or (chosen,))

    def give(self, paths: Iterable[str]) -> None:
        """Make it the owner of these files. Raises ``OSError``."""
        if os.geteuid() == 0:
            for path in paths:
                os.chown(path, self.user, self.group, follow_symlinks=False)

    def assume(self) -> None:
        """Become it, for good. Raises ``PermissionError`` if the process may not, or could go back."""
        if not self._is_ours():
            if os.geteuid() != 0:
                raise PermissionError(
                    f"user {self.user}, group {self.group}: only root can become another one, and this"
                    f" process has the user {os.geteuid()} and the group {os.getegid()}"
                )
            os.setgroups(self.groups)
            os.setresgid(self.group, self.group, self.group)
            os.setresuid(self.user, self.user, self.user)
        self._check()

    def _is_ours(self) -> bool:
        return os.getresuid() == (self.user,) * 3 and os.getresgid() == (self.group,) * 3

    def _check(self) -> None:
        """Try the ways back: the kernel may have been told to keep them (securebits)."""
        if not self._is_ours() or (self.user != 0 and (_becomes_root() or _has_capabilities())):
            raise PermissionError(
                f"user {self.user}, group {self.group}: the process could become root again:"
                " it has kept capabilities (securebits, capabilities(7))"
            )


def _find_user(text: str, *, has_group: bool) -> tuple[int, int, str | None]:
    """The number of the user, its group, and its name, if it has one."""
    try:
        entry = pwd.getpwuid(int(text)) if text.isdecimal() else pwd.getpwnam(text)
    except (KeyError, OverflowError):
        if text.isdecimal() and has_group and int(text) < 2**32 - 1:
            return int(text), 0, None  # of a container: a number is enough
        hint = ": give its group too" if text.isdecimal() else ""
        raise OptionError(f"user: there is no user {text!r} on this system{hint}") from None
    return entry.pw_uid, entry.pw_gid, entry.pw_name


def _find_group(text: str) -> int:
    if text.isdecimal() and int(text) < 2**32 - 1:
        return int(text)
    try:
        return grp.getgrnam(text).gr_gid
    except KeyError:
        raise OptionError(f"group: there is no group {text!r} on this system") from None


def _becomes_root() -> bool:
    with suppress(PermissionError):
        os.setuid(0)
        return True
    return False


def _has_capabilities() -> bool:
    """True if the process may do more than its user; false where the system does not say."""
    try:
        with open("/proc/self/status") as file:
            lines = dict(line.split(":", 1) for line in file)
    except OSError:
        return False
    return int(lines.get("CapPrm", "0"), 16) != 0  # capabilities(7): it may use no others
