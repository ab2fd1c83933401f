"""Check at intervals whether certificates were renewed on disk, and load them."""

from __future__ import annotations

from typing import Protocol

from everserve.errors import TLSConfigError
from everserve.fibers.log import logger

__all__ = ["CertificateWatch"]


class _Renewable(Protocol):
    def changed(self) -> bool: ...
    def reload(self) -> None: ...


class CertificateWatch:
    """The watchdog calls it every ``interval`` seconds. A broken file is logged once, and the old
    certificate stays."""

    def __init__(self, tls: _Renewable, interval: float) -> None:
        self._tls = tls
        self._interval = interval

    def due(self, now: float) -> float:
        """Reload the files that have changed. Returns the time of the next check."""
        if self._tls.changed():
            try:
                self._tls.reload()
                logger.info("certificates renewed")
            except TLSConfigError as error:
                logger.error("renewed certificates are not usable, the old ones stay: %s", error)
        return now + self._interval
