"""No request is lost while the workers are replaced. ``restarts.py`` does it with more of them."""

from __future__ import annotations

from pathlib import Path

from tests.process.restarts import Load, restart
from tests.process.supervised import supervised


def test_restarts_lose_no_request(tmp_path: Path) -> None:
    with supervised(tmp_path) as server:
        with Load(server.address, rate=200) as load:
            restart(server, 3)
        assert (load.lost, server.end()) == ([], 0)
        assert load.done > 0
