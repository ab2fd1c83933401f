"""Mistakes that a program makes in silence: one line each, and no line for what is none."""

from __future__ import annotations

import asyncio
import functools
import http.server
import socketserver
import warnings
import xmlrpc.server
from collections.abc import Generator
from typing import Any
from unittest.mock import MagicMock, Mock, create_autospec

import pytest

import everserve
from everserve.errors import HandlerError, MistakeWarning
from everserve.mistakes import TAKE_THREE, handler_fault, intended, transport_fault
from everserve.options import OPTIONS

Base = everserve.BaseRequestHandler
Stream = everserve.StreamRequestHandler


class Good(Stream[Any, Any]):
    def handle(self) -> None:
        """Nothing to do."""


class Coroutine(Stream[Any, Any]):
    async def handle(self) -> None:  # type: ignore[override]
        """Nothing awaits it."""


class StandardCoroutine(socketserver.StreamRequestHandler):
    async def handle(self) -> None:  # type: ignore[override]
        """Nothing awaits it."""


class Generating(Stream[Any, Any]):
    def handle(self) -> Generator[None]:  # type: ignore[override]
        yield


class AsyncGenerating(Stream[Any, Any]):
    async def handle(self) -> Any:  # type: ignore[override]
        yield


class Nothing(Base[Any, Any]):
    pass


class Misspelt(Stream[Any, Any]):
    def handel(self) -> None:
        """Never called."""


class WithoutSuper(Stream[Any, Any]):
    def __init__(self, request: Any, client_address: Any, server: Any) -> None:
        self.own = request

    def handle(self) -> None:
        """Never called."""


class WithoutBase:
    def handle(self) -> None:
        """Of a class that takes no arguments."""


async def coroutine(request: Any, client_address: Any, server: Any) -> None:
    """Nothing awaits it."""


def generating(request: Any, client_address: Any, server: Any) -> Generator[None]:
    yield


def too_few(request: Any) -> None:
    """Cannot be called with three arguments."""


class AsyncObject:
    async def __call__(self, request: Any, client_address: Any, server: Any) -> None:
        """Nothing awaits it."""


FAULTS: list[tuple[Any, str]] = [
    (None, "None is no request handler: give a class with handle(), or a function of"),
    (5, "5 is no request handler"),
    (object(), "is no request handler"),
    ("app:Upper", "'app:Upper' is a text: import the class, and give the class itself"),
    ("tcp://127.0.0.1:1", "is an address: the handler comes first"),
    ("unix:/run/my.sock", "is an address: the handler comes first"),
    (everserve, "everserve is a module: give one of its classes"),
    (everserve.FiberTCPServer, "FiberTCPServer is a server class: give a request handler"),
    (http.server.HTTPServer, "HTTPServer is a server class: give a request handler"),
    (Coroutine, "Coroutine.handle is 'async def', and nothing awaits it: write 'def'"),
    (StandardCoroutine, "StandardCoroutine.handle is 'async def'"),
    (Generating, "Generating.handle has a 'yield', so that a call of it does nothing"),
    (AsyncGenerating, "AsyncGenerating.handle has a 'yield'"),
    (coroutine, "coroutine is 'async def'"),
    (functools.partial(coroutine, server=None), "is 'async def'"),
    (AsyncObject(), "is 'async def'"),
    (generating, "generating has a 'yield'"),
    (too_few, "it must take (request, client_address, server)"),
    (lambda: None, "it must take (request, client_address, server)"),
    (Nothing, "Nothing has no handle(): define it"),
    (Misspelt, "Misspelt has no handle(): define it, did you mean it by handel()?"),
    (WithoutSuper, "WithoutSuper.__init__ never calls handle(): call super().__init__("),
    (WithoutBase, "WithoutBase is no request handler: inherit StreamRequestHandler"),
]


@pytest.mark.parametrize(("handler", "words"), FAULTS, ids=[words[:60] for _, words in FAULTS])
def test_a_fault_is_one_line(handler: Any, words: str) -> None:
    fault = handler_fault(handler)
    assert fault is not None
    assert words in fault
    assert "\n" not in fault


class InSetup(Base[Any, Any]):
    def setup(self) -> None:
        """All is done here."""


class InInit(Base[Any, Any]):
    def __init__(self, request: Any, client_address: Any, server: Any) -> None:
        self.own = request


class CallsHandle(Base[Any, Any]):
    def __init__(self, *arguments: Any) -> None:
        self.run()

    def run(self) -> None:
        self.handle()

    def handle(self) -> None:
        """Called by ``run``."""


class CallsSuper(Base[Any, Any]):
    def __init__(self, *arguments: Any, extra: int = 0, **keywords: Any) -> None:
        self.extra = extra
        super().__init__(*arguments, **keywords)

    def handle(self) -> None:
        """Called by the base class."""


class CallsBase(Base[Any, Any]):
    def __init__(self, *arguments: Any) -> None:
        Base.__init__(self, *arguments)

    def handle(self) -> None:
        """Called by the base class."""


class RunsItself(Base[Any, Any]):
    def __init__(self, *arguments: Any) -> None:
        asyncio.run(self.handle())

    async def handle(self) -> None:  # type: ignore[override]
        """Run by the constructor."""


class Instance:
    def __call__(self, request: Any, client_address: Any, server: Any) -> None:
        """An object as a handler."""


def function(request: Any, client_address: Any, server: Any) -> None:
    """A function as a handler."""


GOOD: list[Any] = [
    Good,
    Good[Any, Any],
    Base,
    Stream,
    socketserver.BaseRequestHandler,
    InSetup,
    InInit,
    CallsHandle,
    CallsSuper,
    CallsBase,
    RunsItself,
    Instance(),
    function,
    lambda *arguments: None,
    functools.partial(Good),
    functools.partial(CallsSuper, extra=1),
    functools.partial(http.server.SimpleHTTPRequestHandler, directory="."),
    http.server.BaseHTTPRequestHandler,
    getattr(http.server, "CGIHTTPRequestHandler", http.server.SimpleHTTPRequestHandler),
    xmlrpc.server.SimpleXMLRPCRequestHandler,
    Mock(),
    MagicMock(),
    Mock(spec=Good),
    create_autospec(Good),
    type("Made", (Mock,), {}),
]


@pytest.mark.parametrize("handler", GOOD)
def test_what_the_standard_library_takes_has_no_fault(handler: Any) -> None:
    assert handler_fault(handler) is None


@pytest.mark.parametrize("handler", [Stream, Good, socketserver.StreamRequestHandler])
def test_a_handler_of_streams_is_not_for_datagrams(handler: Any) -> None:
    fault = transport_fault(handler, datagrams=True)
    assert fault is not None
    assert "is for streams: for datagrams inherit DatagramRequestHandler" in fault
    assert transport_fault(handler, datagrams=False) is None


@pytest.mark.parametrize(
    "handler", [everserve.DatagramRequestHandler, socketserver.DatagramRequestHandler]
)
def test_a_handler_of_datagrams_is_not_for_streams(handler: Any) -> None:
    fault = transport_fault(handler, datagrams=False)
    assert fault is not None
    assert "is for datagrams: for streams inherit StreamRequestHandler" in fault
    assert transport_fault(handler, datagrams=True) is None


@pytest.mark.parametrize("handler", [Base, function, Mock(), InSetup])
def test_other_handlers_are_for_both(handler: Any) -> None:
    assert transport_fault(handler, datagrams=True) is None
    assert transport_fault(handler, datagrams=False) is None


# --- the classes warn ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("handler", "words"), [(handler, words) for handler, words in FAULTS if handler is not None]
)
def test_a_class_warns_at_the_line_of_the_program(handler: Any, words: str) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with everserve.ThreadingTCPServer(("127.0.0.1", 0), handler):
            pass
    if handler is Nothing or TAKE_THREE in words:  # stands in for a handler where no request comes
        assert not caught
        return
    (warning,) = caught
    assert warning.category is MistakeWarning
    assert words in str(warning.message)
    assert warning.filename == __file__


def test_a_class_of_datagrams_warns_of_a_handler_of_streams() -> None:
    with pytest.warns(MistakeWarning, match="Good is for streams"):
        everserve.UDPServer(("127.0.0.1", 0), Good).server_close()


def test_a_program_with_its_own_finish_request_is_not_warned() -> None:
    class Own(everserve.TCPServer):
        def finish_request(self, request: Any, client_address: Any) -> None:
            """Whatever the handler is."""

    for handler, _ in FAULTS:
        Own(("127.0.0.1", 0), handler).server_close()


@pytest.mark.parametrize(
    ("kind", "name", "value", "words"),
    [
        (everserve.TCPServer, "max_conections", 5, "max_conections is no option: did you mean"),
        (everserve.ThreadPoolTCPServer, "max_worker", 5, "did you mean 'max_workers'"),
        (everserve.FiberTCPServer, "idle_timeuot", 5.0, "did you mean 'idle_timeout'"),
        (everserve.FiberMixIn, "maxConnections", 5, "did you mean 'max_connections'"),
        (everserve.TCPServer, "max_connections", "10", "has no effect: a text is read in serve()"),
        (everserve.TCPServer, "idle_timeout", "2.5", "alone; give 2.5"),
        (everserve.UnixStreamServer, "socket_mode", "660", "give 0o660"),
        (
            everserve.TCPServer,
            "trusted_proxies",
            ["10.0.0.1"],
            "a list is read in serve() alone; give",
        ),
        (everserve.TCPServer, "trusted_proxies", "10.0.0.1", "give an everserve.Networks"),
        (everserve.TCPServer, "access", "deny 10.0.0.0/8", "give an everserve.AccessRules"),
    ],
)
def test_a_class_attribute_that_is_hardly_meant(
    kind: type, name: str, value: Any, words: str
) -> None:
    with pytest.warns(MistakeWarning, match=rf"^Own\.{name}") as caught:
        type("Own", (kind,), {name: value})
    assert words in str(caught[0].message)
    assert caught[0].filename == __file__


def test_an_instance_attribute_that_is_hardly_meant() -> None:
    with everserve.TCPServer(("127.0.0.1", 0), Good) as server:
        with pytest.warns(MistakeWarning, match=r"TCPServer\.max_connections = '10' has no effect"):
            server.max_connections = "10"  # type: ignore[assignment]
        server.max_conections = 10  # type: ignore[attr-defined]
        server.shutdown()
        with pytest.warns(MistakeWarning, match="did you mean 'max_connections'"):
            server.serve_forever()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("file_timeout", 5),  # two slips from idle_timeout
        ("max_connection", lambda self: 5),
        ("acces", property(lambda self: 5)),
        ("_max_conections", 5),
        ("connections_max", 5),
        ("tls", "a file"),
        ("overload", "drop"),
        ("max_connections", "as many as there are"),
        ("idle_timeout", 0),
        ("timeout", None),
        ("host", "example.org"),
    ],
)
def test_an_attribute_of_the_programs_own(name: str, value: Any) -> None:
    with everserve.TCPServer(("127.0.0.1", 0), Good) as server:
        type("Own", (everserve.TCPServer,), {name: value})
        setattr(server, name, value)
        server.shutdown()
        server.serve_forever()


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_is_no_misspelling(name: str) -> None:
    assert intended(name, OPTIONS) is None


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("max_workes", "max_workers"),
        ("max_workerss", "max_workers"),
        ("max_workres", "max_workers"),
        ("max_wirkers", "max_workers"),
        ("MAX_WORKERS", "max_workers"),
        ("ax_workers", "max_workers"),
        ("max_work", None),
        ("m", None),
        ("", None),
    ],
)
def test_one_slip(name: str, meant: str | None) -> None:
    assert intended(name, ["max_workers", "posix"]) == meant


# -- coroutines ------------------------------------------------------------------------------------


class Awaiting(everserve.AsyncStreamRequestHandler[Any, Any]):
    async def handle(self) -> None: ...


class PlainAmongAsync(everserve.AsyncStreamRequestHandler[Any, Any]):
    def handle(self) -> None:
        self.wfile.write(b"")


class AsyncOnPlainFiles(everserve.StreamRequestHandler[Any, Any]):
    async def handle(self) -> None: ...


class AsyncSetup(everserve.StreamRequestHandler[Any, Any]):
    async def setup(self) -> None: ...

    def handle(self) -> None:
        self.wfile.write(b"")


class AsyncDatagrams(everserve.DatagramRequestHandler[Any, Any]):
    async def handle(self) -> None: ...


class AsyncOfTheStandardLibrary(socketserver.BaseRequestHandler):
    async def handle(self) -> None: ...  # type: ignore[override]


@pytest.mark.parametrize("handler", [Awaiting, AsyncDatagrams])
def test_a_coroutine_is_right_where_it_is_awaited(handler: type) -> None:
    assert handler_fault(handler, awaits=True) is None
    assert handler_fault(handler, awaits=None) is None


@pytest.mark.parametrize(
    ("handler", "awaits", "words"),
    [
        (Awaiting, False, "is 'async def', and nothing awaits it"),
        (AsyncDatagrams, False, "is 'async def', and nothing awaits it"),
        (AsyncSetup, False, "AsyncSetup.setup is 'async def', and nothing awaits it"),
        (PlainAmongAsync, False, "use concurrency='asyncio'"),
        (PlainAmongAsync, True, "handle is 'def', and its files want 'await'"),
        (AsyncOnPlainFiles, True, "inherit AsyncStreamRequestHandler"),
        (AsyncOfTheStandardLibrary, True, "is 'async def', and nothing awaits it"),
    ],
)
def test_a_coroutine_is_wrong_elsewhere(handler: type, awaits: bool, words: str) -> None:
    assert words in (handler_fault(handler, awaits=awaits) or "")


def test_make_server_refuses_it() -> None:
    with pytest.raises(HandlerError, match="'async def'"):
        everserve.make_server(Awaiting, "tcp://127.0.0.1:0", concurrency="threads")
    with pytest.raises(HandlerError, match="want 'await'"):
        everserve.make_server(PlainAmongAsync, "tcp://127.0.0.1:0", concurrency="asyncio")
