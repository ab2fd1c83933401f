"""Which handlers an executor can run; found when a server is made."""

from __future__ import annotations

import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.executors.functions import Squares

import everserve
from everserve.errors import OptionError
from everserve.executors.checking import handler_fault_with
from everserve.messages import LineRequestHandler


class Method(LineRequestHandler[Any, Any]):
    def handle_message(self, message: bytes) -> bytes:
        return message


class Builtin(LineRequestHandler[Any, Any]):
    handle_message = staticmethod(zlib.compress)


class Plain(everserve.StreamRequestHandler[Any, Any]):
    def handle(self) -> None: ...


def make(handler: Any, concurrency: Any = "fibers", executor: Any = "processes:2") -> None:
    everserve.make_server(
        handler, "tcp://127.0.0.1:0", concurrency=concurrency, executor=executor
    ).server_close()


@pytest.mark.parametrize("concurrency", ["fibers", "pool"])
def test_what_is_accepted(concurrency: Any) -> None:
    make(Squares, concurrency)
    make(Builtin, concurrency)
    make(Method, concurrency, "threads:2")
    make(Plain, concurrency, None)


@pytest.mark.parametrize("concurrency", ["threads", "forks", "serial"])
def test_words_for_which_it_has_no_meaning(concurrency: Any) -> None:
    with pytest.raises(
        OptionError, match=r"executor has no meaning for a .*: it needs fibers, a pool"
    ):
        make(Squares, concurrency)


def test_a_method_cannot_run_in_another_process() -> None:
    with pytest.raises(OptionError, match=r"Method.handle_message .* make it a @staticmethod"):
        make(Method)


def test_a_function_that_cannot_be_found_there() -> None:
    class Local(LineRequestHandler[Any, Any]):
        @staticmethod
        def handle_message(message: bytes) -> bytes:
            return message

    with pytest.raises(OptionError, match=r"Local.handle_message .* at the top of a module"):
        make(Local)
    make(Local, executor="threads:2")


def test_an_interpreter_cannot_load_everserve() -> None:
    assert handler_fault_with("interpreters:2", Builtin) is None
    assert "a module that does not import everserve" in str(
        handler_fault_with("interpreters:2", Squares)
    )


def test_another_handler_has_no_messages() -> None:
    with pytest.raises(OptionError, match=r"executor runs handle_message, and Plain has none"):
        make(Plain)


def test_the_attribute_of_a_class_is_checked() -> None:
    class Server(everserve.FiberTCPServer):
        executor = "processes:2"

    with pytest.raises(OptionError, match="staticmethod"):
        Server(("127.0.0.1", 0), Method)
    threads = type("Server", (everserve.ThreadingTCPServer,), {"executor": "threads:2"})
    with pytest.raises(OptionError, match="executor has no meaning for threads"):
        threads(("127.0.0.1", 0), Method)


def test_the_program_may_have_an_executor_of_its_own() -> None:
    with ThreadPoolExecutor(1) as executor:
        server = type("Server", (everserve.ThreadingTCPServer,), {"executor": executor})
        server(("127.0.0.1", 0), Plain).server_close()


def test_an_object_is_not_for_workers() -> None:
    with ThreadPoolExecutor(1) as executor:
        with pytest.raises(OptionError, match="workers are others: give a text"):
            everserve.serve(Method, "tcp://127.0.0.1:0", executor=executor, workers=2)
