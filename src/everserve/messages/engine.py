"""The conversation of the engine that runs."""

from typing import TYPE_CHECKING

from everserve.fibers.engines import engine

if TYPE_CHECKING or engine == "python":
    from everserve.messages.conversation import Conversation
else:
    from everserve.messages._conversation import Conversation

__all__ = ["Conversation"]
