"""The processes of the check have a limit, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

import pytest
from tools.programs.processes import Processes, Stopped

NAP = 0.2  # seconds; the limit of what does not end by itself
LONG = 60.0


def run(processes: Processes, code: str, output: Path, limit: float = LONG) -> str:
    return processes.run([sys.executable, "-I", "-c", code], {"WORD": "hello"}, output, limit)


def test_the_output_is_in_the_file(tmp_path: Path) -> None:
    output = tmp_path / "output.txt"
    assert run(Processes(), "import os; print(os.environ['WORD'])", output) == ""
    assert output.read_text() == "hello\n"


def test_a_status_is_told(tmp_path: Path) -> None:
    assert run(Processes(), "raise SystemExit(3)", tmp_path / "o") == "ended with status 3"


def test_what_takes_too_long_is_interrupted(tmp_path: Path) -> None:
    code = "import signal; signal.pause()"
    assert run(Processes(LONG), code, tmp_path / "o", NAP) == "took more than 0 s"


def test_what_ignores_that_is_killed(tmp_path: Path) -> None:
    code = "import signal\nwhile True:\n try: signal.pause()\n except KeyboardInterrupt: pass"
    assert run(Processes(NAP), code, tmp_path / "o", NAP) == "took more than 0 s"


def test_what_it_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    code = f"""import os, signal
pipe = os.open({str(pipe)!r}, os.O_WRONLY)
if os.fork() == 0:
    signal.pause()
"""
    try:
        assert run(Processes(), code, tmp_path / "o") == ""
        os.set_blocking(reader, True)
        assert os.read(reader, 1) == b""  # no process has the other end any more
    finally:
        os.close(reader)


def test_stop_ends_all_and_starts_no_other(tmp_path: Path) -> None:
    processes = Processes()
    ready = tmp_path / "ready"
    os.mkfifo(ready)
    code = f"import signal; open({str(ready)!r}, 'w').close(); signal.pause()"
    ended: list[str] = []
    thread = threading.Thread(target=lambda: ended.append(run(processes, code, tmp_path / "o")))
    thread.start()
    ready.read_text()  # the process runs
    processes.stop()
    thread.join(LONG)
    assert ended == [f"ended with status {-signal.SIGKILL}"]
    with pytest.raises(Stopped):
        run(processes, "", tmp_path / "o")
