"""``everserve doctor``: a table of this machine."""

from __future__ import annotations

import ssl

import pytest

from everserve import engine
from everserve.cli.doctor import doctor
from everserve.process.machine import Finding, Machine


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    doctor.main([*arguments], prog_name="everserve doctor", standalone_mode=False)
    return capsys.readouterr().out.splitlines()


def test_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys)
    assert lines[0].split()[-2:] == ["engine", engine] or lines[0].startswith("! engine")
    assert any(ssl.OPENSSL_VERSION in line for line in lines)
    assert any("net.core.somaxconn" in line for line in lines)
    assert lines[-1].endswith(" for 10000 connections")


def test_what_to_change_is_marked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    findings = [Finding("good", "1"), Finding("a longer name", "2", "make it 3")]
    monkeypatch.setattr(Machine, "examine", lambda self, connections: findings)
    monkeypatch.setattr("everserve.cli.doctor.explain_slow_engine", lambda: None)
    lines = shown(capsys, "-n", "77")
    assert lines[1:] == [
        "  good           1",
        "! a longer name  2",
        "                 -> make it 3",
        "everserve: 1 to look at for 77 connections",
    ]
    findings.pop()
    assert shown(capsys)[-1] == "everserve: nothing to change for 10000 connections"
