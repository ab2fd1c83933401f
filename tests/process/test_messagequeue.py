"""``process.messagequeue``: messages from threads and signal handlers."""

from __future__ import annotations

import subprocess
import sys

from tests.clients import LIMIT, Background

from everserve.process.messagequeue import MessageQueue

MANY_DESCRIPTORS = """
import os, resource, threading
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 2000), hard))
held = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
from everserve.process.messagequeue import MessageQueue
messages = MessageQueue()
threading.Timer(0.0, messages.put, ["received"]).start()
print(messages.get())
"""


def test_messages_in_their_order() -> None:
    messages: MessageQueue[int] = MessageQueue()
    reader = Background(lambda: [messages.get() for _ in range(3)])
    for number in range(3):
        messages.put(number)
    assert reader.result() == [0, 1, 2]


def test_with_descriptors_above_1023() -> None:
    """select(2) knows none of them."""
    done = subprocess.run(
        [sys.executable, "-c", MANY_DESCRIPTORS], capture_output=True, text=True, timeout=LIMIT
    )
    assert done.stdout == "received\n", done.stderr


def test_a_wait_has_an_end() -> None:
    queue: MessageQueue[str] = MessageQueue()
    assert queue.get(0.0) is None
    queue.put("message")
    assert queue.get(0.0) == "message"
