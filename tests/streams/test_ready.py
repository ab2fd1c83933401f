"""`Ready` of both engines: what the reader of tasks returns for a line that is there."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import pytest
from tests.engines import loaded


@pytest.fixture(params=["native", "python"])
def ready(request: pytest.FixtureRequest) -> Any:
    loaded(request.param)
    prefix = "_" if request.param == "native" else ""
    return importlib.import_module(f"everserve.streams.{prefix}ready")


def result_of(coroutine: Any) -> Any:
    with pytest.raises(StopIteration) as stop:
        coroutine.send(None)
    return stop.value.value


def test_it_gives_its_line_without_a_wait(ready: Any) -> None:
    async def take() -> list[bytes | None]:
        return [await ready.Ready(b"a\n"), await ready.Ready(b""), await ready.NOTHING]

    assert result_of(take()) == [b"a\n", b"", None]
    assert result_of(take()) == [b"a\n", b"", None]


def test_it_leaves_the_error_in_progress_alone(ready: Any) -> None:
    async def take() -> list[Any]:
        try:
            raise LookupError
        except LookupError:
            found = [await ready.Ready(b"a\n"), await ready.NOTHING]
            return [*found, sys.exception().__context__]

    assert result_of(take()) == [b"a\n", None, None]
