"""``everserve run --replace``: one supervisor goes on with the listeners of another."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.process.restarts import Load, replace
from tests.process.supervised import HANDLER, Client, start, supervised, unique


def test_a_new_supervisor_serves_at_the_same_addresses(tmp_path: Path) -> None:
    addresses = unique(tmp_path)
    with supervised(tmp_path, *addresses) as old, old.client() as client:
        assert client.ask()[1] == "one"
        new = start(tmp_path, *addresses, "--replace", handler=HANDLER.replace('"one"', '"two"'))
        with new.process:
            try:
                new.await_ready()
                assert new.address == old.address
                old.await_line("another process serves", errors=True)
                assert client.ask()[1] == "one"  # it may go on to its end
                client.close()
                assert old.wait() == 0
                assert new.ask()[1] == "two"
                with Client(f"{tmp_path}/socket") as other:
                    assert other.ask()[1] == "two"
                assert new.end() == 0
            finally:
                new.process.kill()
    assert not (tmp_path / "socket").exists()


def test_one_that_cannot_serve_replaces_nothing(tmp_path: Path) -> None:
    addresses = unique(tmp_path)
    with supervised(tmp_path, *addresses) as old:
        for _ in range(2):
            broken = start(tmp_path, *addresses, "--replace", handler="import no_such_module")
            with broken.process:
                assert broken.wait() == 1
            assert "no_such_module" in broken.errors[-1]
            assert old.ask()[1] == "one"
            with Client(f"{tmp_path}/socket") as other:
                assert other.ask()[1] == "one"
        assert old.end() == 0


def test_without_one_to_replace_it_starts(tmp_path: Path) -> None:
    with supervised(tmp_path, *unique(tmp_path), "--replace") as server:
        assert server.ask()[1] == "one"
        assert server.end(signal.SIGTERM) == 0


def test_replacements_lose_no_request(tmp_path: Path) -> None:
    addresses = unique(tmp_path)
    with supervised(tmp_path, *addresses) as server:
        with Load(server.address, rate=100) as load:
            last = replace(tmp_path, server, 2, *addresses)
        assert (load.lost, last.end()) == ([], 0)
