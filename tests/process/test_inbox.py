"""``process.inbox``: messages from threads and signal handlers."""

from __future__ import annotations

import subprocess
import sys

from tests.clients import LIMIT, Background

from everserve.process.inbox import Inbox

MANY_DESCRIPTORS = """
import os, resource, threading
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 2000), hard))
held = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
from everserve.process.inbox import Inbox
inbox = Inbox()
threading.Timer(0.0, inbox.put, ["received"]).start()
print(inbox.get())
"""


def test_messages_in_their_order() -> None:
    inbox: Inbox[int] = Inbox()
    reader = Background(lambda: [inbox.get() for _ in range(3)])
    for number in range(3):
        inbox.put(number)
    assert reader.result() == [0, 1, 2]


def test_with_descriptors_above_1023() -> None:
    """select(2) knows none of them."""
    done = subprocess.run(
        [sys.executable, "-c", MANY_DESCRIPTORS], capture_output=True, text=True, timeout=LIMIT
    )
    assert done.stdout == "received\n", done.stderr
