"""Worker processes: what they run, how they die, and what they have of the server."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from tests.clients import LIMIT
from tests.executors.functions import double, end, process, signalled, sockets

from everserve.executors.processes import ProcessExecutor, WorkerDied

pytestmark = pytest.mark.usefixtures("unmeasured")


@pytest.fixture
def executor() -> Iterator[ProcessExecutor]:
    made = ProcessExecutor(1)
    yield made
    made.shutdown()


def test_calls_run_in_one_process_after_the_other(executor: ProcessExecutor) -> None:
    first = executor.submit(process).result(LIMIT)
    assert int(first) != os.getpid()
    assert executor.submit(double, b"ab").result(LIMIT) == b"abab"
    with pytest.raises(RuntimeError, match="ValueError: no such message"):
        executor.submit(double, b"error").result(LIMIT)
    assert executor.submit(process).result(LIMIT) == first
    assert executor.pids == (int(first),)
    with pytest.raises(Exception, match=r"pickle|local object"):
        executor.submit(double, lambda: None).result(LIMIT)
    for number in (signal.SIGINT, signal.SIGTERM):  # of a terminal, or of a service manager
        assert executor.submit(signalled, number).result(LIMIT) == b"alive"
    os.kill(int(first), signal.SIGKILL)  # with nothing to do: no call is lost
    _wait_for_the_end(int(first))
    assert executor.submit(process).result(LIMIT) != first


def _wait_for_the_end(pid: int) -> None:
    """Until it has ended; its parent collects it later."""
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def test_a_worker_that_ends_loses_its_call_alone(executor: ProcessExecutor) -> None:
    lost, kept = executor.submit(end, 3), executor.submit(process)
    with pytest.raises(WorkerDied, match="has ended with status 3") as caught:
        lost.result(LIMIT)
    assert caught.value.begun
    assert kept.result(LIMIT)


def test_a_worker_has_no_socket_of_the_server(executor: ProcessExecutor) -> None:
    alone = executor.submit(sockets).result(LIMIT)
    with ProcessExecutor(1) as other, socket.create_server(("127.0.0.1", 0)) as listener:
        listener.set_inheritable(True)
        assert other.submit(sockets).result(LIMIT) == alone == b"1"  # its pipe


def test_a_shutdown_waits_or_kills() -> None:
    executor = ProcessExecutor(1)
    pid = int(executor.submit(process).result(LIMIT))
    executor.shutdown()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(RuntimeError, match="closed"):
        executor.submit(process)


def test_a_program_may_end_without_a_shutdown() -> None:
    code = (
        "from everserve.executors.processes import ProcessExecutor\n"
        "executor = ProcessExecutor(1)\n"
        "print(executor.submit(abs, 1).exception(20))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
