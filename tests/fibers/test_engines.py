"""The choice of the engine: made once, and an error if the engine is not available."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

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


# --- free-threaded builds, as far as a fake of `sys` shows them --------------------------------


@pytest.fixture
def gil(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether the GIL is on, at each look; the last answer stays."""
    answers = [False]
    monkeypatch.setattr(
        sys,
        "_is_gil_enabled",
        lambda: answers.pop(0) if len(answers) > 1 else answers[0],
        raising=False,
    )
    return answers


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The engines that were loaded, each a fake."""
    names: list[str] = []

    def load(name: str) -> SimpleNamespace:
        names.append(name)
        return SimpleNamespace(name=name)

    monkeypatch.setattr(engines, "load", load)
    return names


@pytest.mark.usefixtures("gil")
def test_without_a_gil_auto_takes_python_and_says_so(
    loads: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert engines._choose("auto").name == "python"
    assert loads == ["python"]
    assert "without a GIL: the engine in Python is used" in caplog.text


@pytest.mark.usefixtures("gil", "loads")
def test_who_chose_python_gets_no_line(caplog: pytest.LogCaptureFixture) -> None:
    assert engines._choose("python").name == "python"
    assert caplog.text == ""


@pytest.mark.usefixtures("loads")
@pytest.mark.parametrize("choice", ["native", "python"])
def test_an_engine_that_turns_the_gil_on_is_named(
    choice: str, gil: list[bool], caplog: pytest.LogCaptureFixture
) -> None:
    gil[:] = [False, True]
    assert engines._choose(choice).name == choice
    assert f"the GIL is on now, as the {choice} engine or greenlet" in caplog.text


@pytest.mark.usefixtures("gil", "loads")
def test_the_compiled_engine_does_not_run_without_a_gil() -> None:
    with pytest.raises(EngineUnavailableError, match="PYTHON_GIL=1"):
        engines._choose("native")


@pytest.mark.usefixtures("loads")
def test_a_free_threaded_python_with_its_gil_on_is_like_any_other(
    gil: list[bool], caplog: pytest.LogCaptureFixture
) -> None:
    gil[:] = [True]
    assert engines._choose("auto").name == "native"
    assert caplog.text == ""
