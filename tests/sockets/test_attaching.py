"""``sockets.attaching``: a signal has an idle server run what `sys.remote_exec` has left for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.clients import Background, ask
from tests.engines import loaded

from everserve.sockets.attaching import ATTACH_SIGNAL, woken_to_attach

pytestmark = pytest.mark.skipif(ATTACH_SIGNAL is None, reason="this system has no SIGURG")
number: Any = ATTACH_SIGNAL

PROGRAM = """
import sys, everserve

class Echo(everserve.BaseRequestHandler):
    def handle(self):
        self.request.sendall(self.request.recv(100))

way, strategy = sys.argv[1:]
server = everserve.make_server(Echo, "tcp://127.0.0.1:0", concurrency=strategy)
print(server.server_address[1], flush=True)
if way == "serve_forever":
    server.serve_forever()
elif way == "serve":
    everserve.serve(Echo, "tcp://127.0.0.1:0", concurrency=strategy)
else:
    served = server if way == "running" else everserve.ServerGroup([server])
    with served.running():
        sys.stdin.read()
"""

STRATEGIES = ("serial", "threads", "pool", "forks", "fibers")
WAYS = [
    *(("serve_forever", strategy, "native") for strategy in STRATEGIES),
    ("serve_forever", "fibers", "python"),
    ("serve", "fibers", "native"),
    ("running", "fibers", "native"),
    ("group", "threads", "native"),
]


@pytest.fixture
def started(way: str, strategy: str, engine: str) -> Iterator[subprocess.Popen[str]]:
    loaded(engine)
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, way, strategy],
        env={**os.environ, "EVERSERVE_ENGINE": engine, "PYTHONPATH": ":".join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.kill()


@pytest.mark.skipif(not hasattr(sys, "remote_exec"), reason="sys.remote_exec is of Python 3.14")
@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize(("way", "strategy", "engine"), WAYS)
def test_an_idle_server_runs_the_script(
    way: str, started: subprocess.Popen[str], tmp_path: Path
) -> None:
    assert started.stdout is not None
    port = int(started.stdout.readline())
    if way != "serve":
        assert ask(("127.0.0.1", port)) == b"ping"
    script = tmp_path / "script.py"
    script.write_text("import os; os.write(1, b'attached\\n')")
    try:
        sys.remote_exec(started.pid, script)  # type: ignore[attr-defined,unused-ignore]
    except PermissionError:
        pytest.skip("the system lets no process write into another")
    os.kill(started.pid, number)
    assert started.stdout.readline() == "attached\n"


@pytest.fixture
def _new_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "remote_exec", print, raising=False)


@pytest.mark.usefixtures("_new_python")
def test_it_handles_the_signal_during_the_block() -> None:
    assert signal.getsignal(number) is signal.SIG_DFL
    with woken_to_attach(), woken_to_attach():
        signal.raise_signal(number)
        assert callable(signal.getsignal(number))
    assert signal.getsignal(number) is signal.SIG_DFL


def test_before_python_3_14_it_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(sys, "remote_exec", raising=False)
    with woken_to_attach():
        assert signal.getsignal(number) is signal.SIG_DFL


@pytest.mark.usefixtures("_new_python")
def test_the_programs_own_handler_stays() -> None:
    received: list[int] = []
    before = signal.signal(number, lambda number, frame: received.append(number))
    try:
        with woken_to_attach():
            signal.raise_signal(number)
        assert received == [number]
        with woken_to_attach():
            own = signal.getsignal(number)
        assert signal.getsignal(number) is own
    finally:
        signal.signal(number, before)


@pytest.mark.usefixtures("_new_python")
def test_a_handler_that_the_program_sets_meanwhile_stays() -> None:
    try:
        with woken_to_attach():
            signal.signal(number, signal.SIG_IGN)
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, signal.SIG_DFL)


@pytest.mark.usefixtures("_new_python")
def test_other_threads_change_nothing() -> None:
    def look() -> Any:
        with woken_to_attach():
            return signal.getsignal(number)

    assert Background(look).result() is signal.SIG_DFL
