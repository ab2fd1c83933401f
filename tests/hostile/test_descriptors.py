"""No descriptor left for the next connection, under TLS, in a process with few descriptors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.certificates import Certificates
from tests.hostile.conftest import ROOT, Attacker, Strategy

SERVER = Path(__file__).with_name("starved.py")
CROWD = 80


def test_descriptors_run_out_under_tls(
    strategy: Strategy, attacker: Attacker, certificates: Certificates
) -> None:
    if strategy.name == "forks":
        pytest.skip("the parent holds none of its connections")
    with subprocess.Popen(
        [sys.executable, str(SERVER), strategy.name, *map(str, certificates.server)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        address = json.loads(server.stdout.readline())
        attacker.hold(address, count=CROWD)
        if strategy.is_concurrent:  # else one comes in at a time
            assert json.loads(server.stdout.readline()) == "BackedOff"
        attacker.release()
        good = attacker.ask(address, tls={"ca": certificates.authority})
        assert good == {"answer": "HELLO\n"}
        report = json.loads(server.communicate("stop\n")[0].splitlines()[-1])
    assert server.returncode == 0
    assert report["accepted"] == report["ended"] == CROWD + 1
    assert report["descriptors"] == 0
