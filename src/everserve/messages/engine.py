"""The conversation of the engine that runs, and what runs its coroutines."""

from typing import TYPE_CHECKING

from everserve.fibers.engines import engine

if TYPE_CHECKING or engine == "python":
    from everserve.fibers.carrying import run_coroutine
    from everserve.messages.conversation import Conversation
else:
    from everserve.fibers._carrying import run_coroutine
    from everserve.messages._conversation import Conversation

__all__ = ["Conversation", "run_coroutine"]
