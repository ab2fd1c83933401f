"""The choice of the engine: made once, and an error if the engine is not available."""

from __future__ import annotations

import subprocess
import sys

import pytest

from everserve.errors import EngineUnavailableError, EverserveError
from everserve.fibers import engines


def engine_of(choice: str) -> subprocess.CompletedProcess[str]:
    code = "import everserve.fibers.engines as e; print(e.engine, e.Hub.__module__)"
    return subprocess.run(
        [sys.executable, "-c", code],
        env={"EVERSERVE_ENGINE": choice, "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_python_is_always_available() -> None:
    assert engine_of("python").stdout.split() == ["python", "everserve.fibers.hub"]


def test_auto_takes_the_compiled_engine_where_it_was_built(parts: object) -> None:
    assert engine_of("auto").stdout.split()[0] == engines._choose("auto").name
    assert engine_of("").stdout == engine_of("auto").stdout


def test_an_unknown_engine_is_refused_in_one_line() -> None:
    done = engine_of("quantum")
    assert "EVERSERVE_ENGINE='quantum'" in done.stderr.splitlines()[-1]
    assert done.returncode


def test_a_missing_engine_is_an_import_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(engines._PREFIXES, "native", "_absent_")
    with pytest.raises(EngineUnavailableError, match="EVERSERVE_NATIVE=yes") as caught:
        engines._choose("native")
    assert isinstance(caught.value, ImportError)
    assert isinstance(caught.value, EverserveError)
    assert engines._choose("auto").name == "python"
