"""``reading``: computed attributes that a program may replace with its own of the same name."""

from __future__ import annotations

from typing import Any

from everserve.reading import DefaultInt, InstanceReading, Reading


class Server:
    @Reading
    def state(self) -> str:
        """The state."""
        return "computed"

    @InstanceReading
    def active_children(self) -> set[int]:
        """Who runs."""
        return {1}


def test_it_is_computed_each_time() -> None:
    server = Server()
    assert (server.state, server.active_children) == ("computed", {1})
    assert vars(server) == {}


def test_an_assignment_replaces_it() -> None:
    server: Any = Server()
    server.state = "own"
    assert server.state == "own"
    del server.state
    assert server.state == "computed"


def test_a_subclass_replaces_it() -> None:
    class Own(Server):
        state = "own"  # type: ignore[assignment]

    assert Own().state == "own"


def test_on_the_class() -> None:
    assert isinstance(Server.state, Reading)
    assert Server.state.__doc__ == "The state."
    assert Server.active_children is None


def test_a_default_is_not_the_same_number() -> None:
    default = DefaultInt(2)
    assert default == 2
    assert type(default) is not int
