"""How many descriptors the process may have: the limit that bounds its connections."""

from __future__ import annotations

import sys

__all__ = ["raise_limit"]

_MOST = 1 << 20
"""Where the hard limit is infinite: as many as Linux lets a process have by default (fs.nr_open)."""

if sys.platform == "win32":

    def raise_limit() -> int:
        """The number of descriptors that the process may have: on Windows no limit is known."""
        return _MOST

else:
    import resource

    def raise_limit() -> int:
        """Raise the soft limit of descriptors to the hard one. Returns the limit that holds then."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = _MOST if hard == resource.RLIM_INFINITY else hard
        if soft == resource.RLIM_INFINITY:
            return _MOST
        if soft < wanted:
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            except (OSError, ValueError):  # macOS has a lower one (kern.maxfilesperproc)
                return soft
            return wanted
        return soft
