"""``finalization``: at the end of the interpreter the hubs of other threads stand still.

This is seen in a process of its own, whose end is part of the test.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from tests.clients import LIMIT
from tests.engines import loaded

PROGRAM = """
import atexit, sys, threading, time
from everserve.fibers import sleep, spawn
from everserve.fibers.engines import Hub
from everserve.fibers.finalization import halt_hubs

def idle():
    while True:
        sleep(60)

def wait_often():
    while True:
        sleep(0.0001)

def spin():
    while True:
        pass

def block_often():
    while True:
        time.sleep(0.0001)

def nap():
    while True:
        time.sleep(0.01)
        sleep(0)

def crowd():
    for _ in range(400):
        spawn(nap)
    while True:
        sleep(0)

class Case(threading.Thread):
    def __init__(self, function):
        super().__init__(daemon=True)
        self.function = function
        self.begun = threading.Event()
        self.hub = Hub()
        self.fiber = self.hub.spawn(self.act)

    def act(self):
        self.begun.set()
        self.function()

    def run(self):
        while True:
            self.hub.turn()

    def stack(self):
        frame = sys._current_frames()[self.ident]
        while frame is not None:
            yield frame.f_code.co_name
            frame = frame.f_back

atexit.unregister(halt_hubs)  # it is called here
cases = [Case(function) for function in (idle, wait_often, crowd, spin, block_often)]
for case in cases:
    case.start()
    case.begun.wait()
halt_hubs()
for case in cases:
    stack = tuple(case.stack())
    print("_stand_still" in stack, "act" in stack, case.fiber.dead)
"""


@pytest.mark.parametrize("engine", ["native", "python"])
def test_hubs_stand_still_outside_of_their_fibers(engine: str) -> None:
    loaded(engine)
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        env=os.environ | {"EVERSERVE_ENGINE": engine},
    )
    assert ended.stderr == ""
    assert ended.stdout.splitlines() == [*["True False False"] * 3, *["True False True"] * 2]
    assert ended.returncode == 0
