"""The choice of the engine: told once, and an error when it cannot be met."""

from __future__ import annotations

import subprocess
import sys

import pytest

from everserve.errors import EngineUnavailableError, EverserveError
from everserve.fibers import engine


def engine_of(choice: str) -> subprocess.CompletedProcess[str]:
    code = "import everserve.fibers.engine as e; print(e.engine, e.Hub.__module__)"
    return subprocess.run(
        [sys.executable, "-c", code],
        env={"EVERSERVE_ENGINE": choice, "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_python_can_always_be_had() -> None:
    assert engine_of("python").stdout.split() == ["python", "everserve.fibers.hub"]


def test_auto_takes_the_compiled_one_where_it_is(parts: object) -> None:
    assert engine_of("auto").stdout.split()[0] == engine._choose("auto").name
    assert engine_of("").stdout == engine_of("auto").stdout


def test_an_engine_that_does_not_exist_is_refused_in_one_line() -> None:
    done = engine_of("quantum")
    assert "EVERSERVE_ENGINE='quantum'" in done.stderr.splitlines()[-1]
    assert done.returncode


def test_a_missing_engine_is_an_import_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(engine._PREFIXES, "native", "_absent_")
    with pytest.raises(EngineUnavailableError, match="EVERSERVE_NATIVE=yes") as caught:
        engine._choose("native")
    assert isinstance(caught.value, ImportError)
    assert isinstance(caught.value, EverserveError)
    assert engine._choose("auto").name == "python"
