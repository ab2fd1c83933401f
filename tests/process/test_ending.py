"""``ending``: the end of a process with threads that do not end. It has a process of its own."""

import logging
import subprocess
import sys
import threading

import pytest
from tests.clients import LIMIT

from everserve.process.ending import STATUS, leave_behind

PROGRAM = """
import atexit, sys, threading
from everserve.process.ending import leave_behind

atexit.register(print, "at exit")
go_on = threading.Event()
thread = threading.Thread(target=go_on.wait)
thread.start()
leave_behind([thread])
if sys.argv[1] == "ends":
    go_on.set()
    thread.join()
print("end of the program")
"""


@pytest.mark.parametrize(("what", "status"), [("stays", STATUS), ("ends", 0)])
def test_the_process_ends_without_the_thread(what: str, status: int) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, what], capture_output=True, text=True, timeout=LIMIT
    )
    assert ended.stdout == "end of the program\nat exit\n"
    assert ended.returncode == status
    assert "does not end: " in ended.stderr


def test_a_thread_that_has_ended_is_not_left(caplog: pytest.LogCaptureFixture) -> None:
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()
    with caplog.at_level(logging.DEBUG):
        leave_behind([thread])
    assert caplog.records == []
