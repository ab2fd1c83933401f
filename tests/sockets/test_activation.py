"""``sockets.activation``: which descriptors the service manager has passed, by their names."""

from __future__ import annotations

import os

import pytest

from everserve.errors import AddressError
from everserve.sockets.activation import passed


@pytest.fixture
def passing(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Three sockets; two have the same name."""
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "3")
    monkeypatch.setenv("LISTEN_FDNAMES", "web:admin:web")
    return monkeypatch


def test_a_name_has_its_descriptors(passing: pytest.MonkeyPatch) -> None:
    assert passed("web") == [3, 5]
    assert passed("admin") == [4]


@pytest.mark.parametrize("names", [None, "", "unknown", "::"])
def test_sockets_without_a_name_are_unknown(passing: pytest.MonkeyPatch, names: str | None) -> None:
    if names is None:
        passing.delenv("LISTEN_FDNAMES")
    else:
        passing.setenv("LISTEN_FDNAMES", names)
    assert passed("unknown") == [3, 4, 5]


def test_an_unknown_name_is_an_error_that_has_the_others(passing: pytest.MonkeyPatch) -> None:
    with pytest.raises(AddressError, match=r"there is systemd:web, systemd:admin$"):
        passed("Web")


@pytest.mark.parametrize(
    ("variable", "value"),
    [("LISTEN_PID", "1"), ("LISTEN_FDS", "0"), ("LISTEN_FDS", "many"), ("LISTEN_FDS", "-1")],
)
def test_none_are_passed(passing: pytest.MonkeyPatch, variable: str, value: str) -> None:
    """Those of another process, which has passed its environment on, are not ours."""
    passing.setenv(variable, value)
    with pytest.raises(AddressError, match="has passed no sockets to this process"):
        passed("web")
