"""Starting and ending servers: none is left behind, and a failure to start is explained."""

import shutil
import sys
from pathlib import Path

import pytest
from benchmarks.measure import Failed, Settings, run_load, served
from benchmarks.peers import PEERS, Peer
from benchmarks.programs import CannotStart

from benchmarks import measure

SETTINGS = Settings(server_core=None, load_core=None, seconds=0.1, warmup=0.02, idle=20)
STD = PEERS["std-threading"]
needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")


def lives(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def program(folder: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> Peer:
    """A peer of these lines of Python."""
    (folder / "peer.py").write_text(code)
    monkeypatch.setattr(measure, "SERVERS", folder)
    return Peer("peer", "a peer", "peer.py")


def test_ends_the_server_with_the_block() -> None:
    with served(STD, "echo", sys.executable, SETTINGS) as server:
        assert lives(server.pid)
        assert server.resident_bytes() > 1_000_000
    assert not lives(server.pid)


def test_ends_the_server_when_the_block_fails() -> None:
    with pytest.raises(KeyboardInterrupt):
        with served(STD, "echo", sys.executable, SETTINGS) as server:
            raise KeyboardInterrupt
    assert not lives(server.pid)


def test_reports_why_a_server_cannot_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    peer = program(tmp_path, monkeypatch, "import no_such_module")
    with pytest.raises(CannotStart, match="no_such_module"):
        with served(peer, "echo", sys.executable, SETTINGS):
            pass


def test_output_without_a_port_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    peer = program(tmp_path, monkeypatch, "print('hello')\nimport time\ntime.sleep(60)")
    with pytest.raises(CannotStart, match="no port"):
        with served(peer, "echo", sys.executable, SETTINGS):
            pass


@needs_compiler
def test_a_server_that_has_ended_has_failed() -> None:
    with served(STD, "echo", sys.executable, SETTINGS) as server:
        server.process.kill()
        server.process.wait()
        with pytest.raises(Failed):
            run_load(server, SETTINGS, "echo")


@needs_compiler
def test_holds_idle_connections() -> None:
    with served(STD, "echo", sys.executable, SETTINGS) as server:
        figures = measure.held(server, SETTINGS, ("echo", "--connections", "4", "--bytes", "64"))
    assert figures["kilobytes"] > 0
    assert figures["cpu_ms"] >= 0
