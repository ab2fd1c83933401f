"""The session of the engine that runs."""

from typing import TYPE_CHECKING

from everserve.fibers.engines import engine

if TYPE_CHECKING or engine == "python":
    from everserve.messages.session import Session
else:
    from everserve.messages._session import Session

__all__ = ["Session"]
