"""Devices live through deploys. ``fleet.py`` does it with more of them."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from tests.process.fleet import DEVICE, Fleet, deploy
from tests.process.restarts import replace
from tests.process.supervised import HANDLER, supervised, unique, until

DEVICES = 50


@pytest.mark.parametrize(
    ("concurrency", "engine"), [("fibers", "native"), ("fibers", "python"), ("pool", "native")]
)
def test_devices_stay_connected(
    tmp_path: Path, concurrency: str, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("everserve.fibers._hub" if engine == "native" else "everserve")
    monkeypatch.setenv("EVERSERVE_ENGINE", engine)
    with supervised(tmp_path, "--concurrency", concurrency, handler=DEVICE) as server:
        with Fleet(server.address, DEVICES, interval=0.1) as fleet:
            deploy(server, fleet, 3)
            assert len(fleet.workers()) == 2
        assert fleet.faults == []
        assert fleet.answers >= 3 * DEVICES
        assert server.end() == 0
        lines = [line for line in server.errors if "connections moved" in line]
        assert sum(int(line.split(" connections moved")[0].split()[-1]) for line in lines) == 150


def test_devices_survive_another_supervisor(tmp_path: Path) -> None:
    addresses = unique(tmp_path)
    with supervised(tmp_path, *addresses, handler=DEVICE) as server:
        with Fleet(server.address, DEVICES, interval=0.1) as fleet:
            fleet.await_answers()
            for times in (1, 2):
                before = server
                server = replace(tmp_path, before, 1, *addresses, handler=DEVICE)
                assert "0 finished, 0 cut, 50 moved" in before.await_line("stopped")
                until(lambda times=times: fleet.moved(times) == DEVICES or fleet.faults)
        assert (fleet.faults, server.end()) == ([], 0)


def test_new_code_without_handover_ends_the_connections(tmp_path: Path) -> None:
    with supervised(tmp_path, handler=DEVICE) as server, server.client() as client:
        assert client.ask("1")[:2] == ["1", "1"]
        (tmp_path / "answer.py").write_text(HANDLER)
        server.send(signal.SIGHUP)
        assert client.file.read() == b""
        assert server.end() == 0


def test_a_worker_that_has_done_its_part_leaves_its_connections(tmp_path: Path) -> None:
    with supervised(tmp_path, "--max-requests", "20", workers=1, handler=DEVICE) as server:
        with Fleet(server.address, 30, interval=0.1) as fleet:
            fleet.await_answers()
            until(lambda: fleet.moved(1) == 30 or fleet.faults)
        assert fleet.faults == []
        assert server.end() == 0
