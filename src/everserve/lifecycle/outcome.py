"""How a request ended in another process, as the child reports it to its parent.

The strategy of forks passes it to ``Progress``, which emits the events.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Outcome"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of one request, as text. ``missed`` is a deadline, ``is_cut`` true if that cut it.

    ``refused`` is the reason of a refusal.

    ``error`` is the text of the exception that caused the failure or the refusal. ``failed`` is true if
    the handler raised it; ``peer_gone`` is true if the cause is that the peer disconnected.
    """

    missed: str = ""
    is_cut: bool = True
    refused: str = ""
    failed: bool = False
    error: str = ""
    peer_gone: bool = False
