"""Puts everserve in the place of `socketserver` when the interpreter of a program's tests starts.

Python imports a module of this name before everything else, in the child processes of the tests too.
"""

import os
import runpy
import sys
import traceback

MIXINS = {"threads": None, "pool": "ThreadPoolMixIn", "fibers": "FiberMixIn"}


def replace() -> None:
    strategy = os.environ.get("PROGRAMS_STRATEGY", "stdlib")
    if strategy == "stdlib":
        return
    sys.path.append(os.environ["PROGRAMS_EVERSERVE"])
    runner = runpy.run_path(os.environ["PROGRAMS_RUNNER"])
    sys.modules["socketserver"] = runner["replacement"]("everserve", MIXINS[strategy])


try:
    replace()
except Exception:
    # Python would ignore it and go on, on the standard library.
    traceback.print_exc()
    os._exit(70)
