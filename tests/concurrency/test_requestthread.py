"""``concurrency.requestthread``: what a thread does with one request."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from everserve.concurrency.requestthread import RequestThreadMixIn


class Noted:
    """A server whose hooks are noted, and raise what they are told to."""

    def __init__(self, **errors: BaseException) -> None:
        self.calls: list[str] = []
        self.errors = errors

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name in self.errors:
            raise self.errors[name]

    def finish_request(self, request: Any, client_address: Any) -> None:
        self._call("finish_request")

    def shutdown_request(self, request: Any) -> None:
        self._call("shutdown_request")

    def handle_error(self, request: Any, client_address: Any) -> None:
        self._call(f"handle_error {sys.exception()}")


class Server(RequestThreadMixIn, Noted):  # type: ignore[misc]
    pass


@pytest.mark.parametrize(
    ("errors", "calls"),
    [
        ({}, ["finish_request", "shutdown_request"]),
        (
            {"finish_request": ValueError("f")},
            ["finish_request", "handle_error f", "shutdown_request"],
        ),
        (
            {"shutdown_request": ValueError("s")},
            ["finish_request", "shutdown_request", "handle_error s"],
        ),
        (
            {"finish_request": ValueError("f"), "shutdown_request": ValueError("s")},
            ["finish_request", "handle_error f", "shutdown_request", "handle_error s"],
        ),
    ],
)
def test_the_order(errors: dict[str, BaseException], calls: list[str]) -> None:
    server = Server(**errors)
    server.process_request_thread("request", "peer")
    assert server.calls == calls


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_what_is_no_exception_passes_and_the_request_is_closed(
    kind: type[BaseException],
) -> None:
    server = Server(finish_request=kind())
    with pytest.raises(kind):
        server.process_request_thread("request", "peer")
    assert server.calls == ["finish_request", "shutdown_request"]


def test_a_handle_error_that_raises_still_closes_the_request() -> None:
    class Strict(Server):
        def handle_error(self, request: Any, client_address: Any) -> None:
            if "handle_error" not in self.calls:
                self.calls.append("handle_error")
                raise KeyError("strict")
            self.calls.append("again")

    server = Strict(finish_request=ValueError())
    server.process_request_thread("request", "peer")
    assert server.calls == ["finish_request", "handle_error", "shutdown_request", "again"]
