"""The options of workers."""

import os
import subprocess
import sys
from typing import Any

import pytest

import everserve
from everserve.errors import OptionError
from everserve.process.workforce import Workforce, make_workforce, read_workers


def test_auto_is_one_for_each_core() -> None:
    assert read_workers("auto") == len(os.sched_getaffinity(0))


@pytest.mark.parametrize("value", [0, -1, 10_000, True, 2.0, "4", "many", None])
def test_what_is_no_number_of_workers(value: Any) -> None:
    with pytest.raises(OptionError, match=r"workers = .*: expected 'auto', or a number"):
        read_workers(value)


@pytest.mark.parametrize(
    "options",
    [{"worker_timeout": 1}, {"worker_timeout": "5"}, {"max_requests": 0}, {"max_memory": 1.5}],
    ids=str,
)
def test_values_that_are_not_accepted(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(OptionError, match=f"{name} = "):
        Workforce(workers=1, **options)


def test_options_of_workers_need_workers() -> None:
    assert make_workforce(None, 30.0, None, None) is None
    with pytest.raises(OptionError, match="say how many"):
        make_workforce(None, 30.0, 100, None)


def test_a_worker_wakes_once_a_second_at_most() -> None:
    assert Workforce(workers=1).interval == 7.5
    assert Workforce(workers=1, worker_timeout=2).interval == 1
    assert Workforce(workers=1, worker_timeout=None).interval == 10
    assert Workforce(workers=1, max_requests=5).interval == 1


def test_workers_do_not_end_together() -> None:
    found = {Workforce(workers=1, max_requests=1000).requests_of_one() for _ in range(50)}
    assert len(found) > 1
    assert all(1000 <= one <= 1100 for one in found)


def test_serve_checks_them_before_it_binds() -> None:
    class Handler(everserve.BaseRequestHandler[Any, Any]):
        def handle(self) -> None: ...

    with pytest.raises(OptionError, match="workers = 0"):
        everserve.serve(Handler, "tcp://127.0.0.1:0", workers=0)
    with pytest.raises(OptionError, match="workers = 2: max_connections = 1 is shared out"):
        everserve.serve(Handler, "tcp://127.0.0.1:0", workers=2, max_connections=1)


OF_ANOTHER_SYSTEM = """
import os, signal, socket, sys
for module, names in [
    (signal, "SIGQUIT SIGHUP SIGTTIN SIGTTOU SIGUSR1 SIGUSR2 SIGCHLD pidfd_send_signal"),
    (os, "pidfd_open memfd_create sysconf sched_getaffinity"),
    (socket, "SOCK_SEQPACKET send_fds recv_fds"),
]:
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)
import everserve
class Handler(everserve.BaseRequestHandler):
    def handle(self):
        pass
try:
    everserve.serve(Handler, "tcp://127.0.0.1:0", workers=2)
except everserve.errors.OptionError as error:
    print(error)
"""


def test_another_system_than_linux_has_everything_but_workers() -> None:
    done = subprocess.run(
        [sys.executable, "-c", OF_ANOTHER_SYSTEM],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert done.stdout == "workers = 2: this system cannot share listeners: it needs Linux\n"
