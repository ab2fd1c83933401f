"""The threads of `offload`: bounded, started when needed, and again after a failure."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
from tests.threads import Exhausted

from everserve.fibers import offloadpool
from everserve.fibers.offloadpool import OffloadPool

LIMIT = 20.0


def test_so_many_threads_run_and_the_rest_waits() -> None:
    pool = OffloadPool(2, name="pool-under-test")
    gate, running = threading.Event(), threading.Semaphore(0)

    def work(number: int) -> int:
        running.release()
        assert gate.wait(LIMIT)
        return number

    futures = [pool.submit(work, number) for number in range(5)]
    assert running.acquire(timeout=LIMIT)
    assert running.acquire(timeout=LIMIT)
    assert pool._threads == 2
    gate.set()
    assert [future.result(LIMIT) for future in futures] == [0, 1, 2, 3, 4]
    pool.shutdown()


def test_an_idle_thread_is_used_again_and_ends_later(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = OffloadPool(2, name="pool-under-test")
    first = pool.submit(threading.current_thread).result(LIMIT)
    monkeypatch.setattr(offloadpool, "IDLE_TIME", 0.001)
    while pool._threads:
        first.join(LIMIT)
    assert pool.submit(lambda: 3).result(LIMIT) == 3
    pool.shutdown()


def test_a_closed_one_takes_no_call_and_cancels_those_that_wait() -> None:
    pool = OffloadPool(1, name="pool-under-test")
    gate, running = threading.Event(), threading.Event()
    first = pool.submit(lambda: running.set() or gate.wait(LIMIT))
    assert running.wait(LIMIT)
    second = pool.submit(print)
    pool.shutdown(cancel_futures=True)
    assert second.cancelled()
    gate.set()
    assert first.result(LIMIT)
    with pytest.raises(RuntimeError, match="closed"):
        pool.submit(print)


def test_an_error_of_a_call_is_that_of_its_future() -> None:
    pool = OffloadPool(1, name="pool-under-test")
    with pytest.raises(ZeroDivisionError):
        pool.submit(lambda: 1 / 0).result(LIMIT)
    assert pool.submit(lambda: 3).result(LIMIT) == 3
    pool.shutdown()


def test_without_threads_a_call_fails_and_is_not_run_later(exhausted: Exhausted) -> None:
    pool = OffloadPool(1, name="pool-under-test")
    ran: list[int] = []
    with pytest.raises(RuntimeError, match="no thread left"):
        pool.submit(ran.append, 1)
    exhausted.end()
    pool.submit(ran.append, 2).result(LIMIT)
    assert ran == [2]
    pool.shutdown()


def test_without_further_threads_those_that_run_take_the_calls(exhausted: Exhausted) -> None:
    pool = OffloadPool(2, name="pool-under-test")
    exhausted.spared.add("pool-under-test")
    gate, running = threading.Event(), threading.Event()
    first = pool.submit(lambda: running.set() or gate.wait(LIMIT))
    assert running.wait(LIMIT)
    exhausted.spared.clear()
    second = pool.submit(lambda: 3)
    gate.set()
    assert first.result(LIMIT)
    assert second.result(LIMIT) == 3
    pool.shutdown()


@pytest.mark.usefixtures("unmeasured")
def test_it_works_after_the_main_thread_has_ended() -> None:
    """As in a program whose main thread starts a server in another thread, and returns."""
    program = """
import threading, everserve.fibers as fibers
from everserve.fibers.engines import Hub
def serve():
    threading.main_thread().join()
    hub = Hub()
    hub.spawn(lambda: print(fibers.offload(pow, 2, 5)))
    while hub.fibers:
        hub.turn(10)
    hub.close()
threading.Thread(target=serve).start()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=False
    )
    assert (done.stdout, done.stderr) == ("32\n", "")
