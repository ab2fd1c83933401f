"""``--reload``: the code is served anew when a file changes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cli.test_commands import everserve
from tests.clients import LIMIT

APP = """
import everserve
class Says(everserve.StreamRequestHandler):
    def handle(self):
        self.wfile.write({word!r}); self.wfile.flush(); self.rfile.read()
"""


def lines_until(process: subprocess.Popen[str], words: str) -> list[str]:
    assert process.stdout is not None
    lines = [process.stdout.readline()]
    while words not in lines[-1]:
        assert lines[-1], lines
        lines.append(process.stdout.readline())
    return lines


def test_changed_code_is_served_anew(tmp_path: Path) -> None:
    pytest.importorskip("watchfiles")
    app = tmp_path / "app.py"
    app.write_text(APP.format(word=b"one"))
    with subprocess.Popen(
        [sys.executable, "-m", "everserve", "run", "app:Says", "-b", "unix:s", "--reload"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"WATCHFILES_FORCE_POLLING": "true", "EVERSERVE_GRACE": "3600"},
    ) as process:
        try:
            lines_until(process, "press Ctrl-C")
            client = hear(tmp_path, b"one")
            app.write_text("broken(")
            assert "app.py: serving anew" in "".join(lines_until(process, "SyntaxError"))
            assert client.recv(100) == b""  # it was cut
            client.close()
            app.write_text(APP.format(word=b"two"))
            lines_until(process, "press Ctrl-C")
            hear(tmp_path, b"two").close()
            process.send_signal(signal.SIGINT)
            rest, _ = process.communicate(timeout=LIMIT)
        finally:
            process.terminate()
    assert process.returncode == 0
    assert rest.count("SIGINT: draining") == 1


def hear(folder: Path, word: bytes) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(LIMIT)
    client.connect(os.path.relpath(folder / "s"))
    assert client.recv(100) == word
    return client


def test_without_the_library_it_names_the_package(tmp_path: Path) -> None:
    (tmp_path / "watchfiles.py").write_text("raise ModuleNotFoundError('watchfiles')\n")
    path = f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"
    done = everserve("run", "app:Says", "--reload", PYTHONPATH=path)
    assert done.returncode == 2
    assert done.stderr == (
        "everserve: --reload needs watchfiles: pip install 'everserve[reload]'\n"
    )
