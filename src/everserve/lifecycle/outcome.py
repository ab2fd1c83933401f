"""How a request ended in another process, as the child reports it to its parent.

The strategy of forks carries it; ``Progress`` makes events of it.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Outcome"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of one request, in words. ``missed`` is a deadline, ``refused`` the reason of a refusal.

    ``error`` is the text of the exception that made it fail, or be refused; ``failed`` is true where
    the handler raised it, and ``peer_gone`` where it did because the peer had gone.
    """

    missed: str = ""
    refused: str = ""
    failed: bool = False
    error: str = ""
    peer_gone: bool = False
