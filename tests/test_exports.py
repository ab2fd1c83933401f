"""everserve has the names of ``socketserver``, in the same places."""

from __future__ import annotations

import importlib
import inspect
import socket
import socketserver as standard
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from tests.clients import LIMIT, Background, ask, connect, read_all, serving

import everserve

LOOPBACK = ("127.0.0.1", 0)
FORKS_AMONG_THREADS = "ignore:This process .* is multi-threaded:DeprecationWarning"

CLASSES = [name for name in standard.__all__ if inspect.isclass(getattr(standard, name))]


def methods(owner: type) -> Iterator[tuple[str, Any]]:
    """The public methods of a class, with those it inherits."""
    for name, value in inspect.getmembers(owner, inspect.isfunction):
        if not name.startswith("_") or name in ("__init__", "__enter__", "__exit__"):
            yield name, value


# -- names -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", standard.__all__)
def test_every_name_is_here(name: str) -> None:
    assert name in everserve.__all__
    assert callable(getattr(everserve, name))


def test_all_is_exact() -> None:
    assert len(everserve.__all__) == len(set(everserve.__all__))
    scope: dict[str, Any] = {}
    exec("from everserve import *", scope)
    assert set(scope) - {"__builtins__"} == set(everserve.__all__)


ATTRIBUTES_ALONE = ["Connection", "engine", "make_group", "make_server", "serve"]


@pytest.mark.parametrize("name", ATTRIBUTES_ALONE)
def test_what_a_star_import_leaves_out(name: str) -> None:
    assert name not in everserve.__all__
    assert hasattr(everserve, name)


ELSEWHERE = """
builtins asyncio concurrent.futures contextlib ctypes http.client http.server io logging.handlers
multiprocessing multiprocessing.connection multiprocessing.managers os queue select selectors signal
socket sqlite3 ssl subprocess sys threading time types typing unittest wsgiref.simple_server
xmlrpc.server
"""


@pytest.mark.parametrize("module", ELSEWHERE.split())
def test_a_star_import_replaces_nothing_else(module: str) -> None:
    own = set(everserve.__all__) - set(standard.__all__)
    assert not own & set(vars(importlib.import_module(module)))


def test_a_star_import_brings_classes_alone() -> None:
    assert [
        name for name in everserve.__all__ if not inspect.isclass(getattr(everserve, name))
    ] == []


def test_a_star_import_replaces_the_standard_one() -> None:
    scope: dict[str, Any] = {}
    exec("from socketserver import *\nfrom everserve import *", scope)
    for name in standard.__all__:
        assert scope[name] is getattr(everserve, name)


@pytest.mark.parametrize(
    "name", [*everserve.__all__, "Connection", "make_group", "make_server", "serve"]
)
def test_every_export_is_documented(name: str) -> None:
    assert inspect.getdoc(getattr(everserve, name))


def test_it_works_without_the_standard_module() -> None:
    script = "import sys, everserve; print('socketserver' in sys.modules)"
    child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (child.stdout, child.stderr) == ("False\n", "")


def test_the_classes_are_not_the_standard_ones() -> None:
    for name in CLASSES:
        bases = getattr(everserve, name).__mro__
        assert not any(base.__module__ == "socketserver" for base in bases)


def version_of(module: Any) -> tuple[str, list[str]]:
    """Its ``__version__``, and where the warnings about it point to."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        version = module.__version__
    assert all(warning.category is DeprecationWarning for warning in caught)
    return version, [warning.filename for warning in caught]


def test_the_version_is_that_of_socketserver() -> None:
    assert version_of(everserve) == version_of(standard)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'everserve' has no attribute 'nothing'"):
        _ = everserve.nothing  # type: ignore[attr-defined]


# -- classes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLASSES)
def test_the_bases_are_the_same(name: str) -> None:
    theirs = [base.__name__ for base in getattr(standard, name).__mro__]
    ours = [base.__name__ for base in getattr(everserve, name).__mro__]
    assert [base for base in ours if base in theirs] == theirs


def test_the_subclass_relations_are_the_same() -> None:
    assert issubclass(everserve.UDPServer, everserve.TCPServer)
    assert issubclass(everserve.UnixStreamServer, everserve.TCPServer)
    assert issubclass(everserve.UnixDatagramServer, everserve.UDPServer)
    assert issubclass(everserve.TCPServer, everserve.BaseServer)


SIGNATURES = [
    pytest.param(name, method, function, id=f"{name}.{method}")
    for name in CLASSES
    for method, function in methods(getattr(standard, name))
]


@pytest.mark.parametrize(("name", "method", "theirs"), SIGNATURES)
def test_methods_accept_the_arguments_of_the_standard_ones(
    name: str, method: str, theirs: Any
) -> None:
    expected = inspect.signature(theirs).parameters.values()
    ours = inspect.signature(getattr(getattr(everserve, name), method)).parameters
    positional = [p.name for p in ours.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    for place, parameter in enumerate(expected):
        if parameter.kind is parameter.VAR_POSITIONAL:  # __exit__(self, *args)
            assert len(positional) == 4
        elif parameter.kind is parameter.KEYWORD_ONLY:
            assert ours[parameter.name].default == parameter.default
        else:
            assert positional[place] == parameter.name
            assert ours[parameter.name].default == parameter.default
    required = [
        p.name
        for p in ours.values()
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    names = {parameter.name for parameter in expected}
    assert method == "__exit__" or set(required) <= names


ATTRIBUTES = [
    pytest.param(name, attribute, id=f"{name}.{attribute}")
    for name in CLASSES
    for attribute, value in inspect.getmembers(getattr(standard, name))
    if not attribute.startswith("_") and not callable(value)
]

BY_DESIGN = {
    "request_queue_size": socket.SOMAXCONN,  # issue 2, 2.11
    "max_packet_size": 65535,  # issue 2, 2.7
}


@pytest.mark.parametrize(("name", "attribute"), ATTRIBUTES)
def test_attributes_keep_their_defaults(name: str, attribute: str) -> None:
    theirs = getattr(getattr(standard, name), attribute)
    assert getattr(getattr(everserve, name), attribute) == BY_DESIGN.get(attribute, theirs)


# -- what existing code relies on --------------------------------------------------------------


class Echo(everserve.BaseRequestHandler):
    def handle(self) -> None:
        self.request.sendall(self.request.recv(100))


def test_the_socket_may_be_replaced_after_init() -> None:
    server = everserve.TCPServer(LOOPBACK, Echo, bind_and_activate=False)
    server.socket.close()
    server.socket = socket.create_server(LOOPBACK)
    server.server_address = server.socket.getsockname()
    with serving(server) as address:
        assert ask(address) == b"ping"


@pytest.mark.parametrize("mix_in", ["", "Threading", "ThreadPool", "Fiber"])
def test_the_client_address_may_be_any_object(mix_in: str) -> None:
    class Peer:
        def __str__(self) -> str:
            return "someone"

    class Server(getattr(everserve, f"{mix_in}TCPServer")):  # type: ignore[misc]
        def get_request(self) -> Any:
            request, _ = super().get_request()
            return request, Peer()

    def reply(request: Any, client_address: Any, server: Any) -> None:
        request.sendall(str(client_address).encode())

    with serving(Server(LOOPBACK, reply)) as address:
        assert ask(address, b"") == b"someone"


def test_the_handler_may_be_a_function() -> None:
    def shout(request: Any, client_address: Any, server: Any) -> None:
        request.sendall(request.recv(100).upper())

    with serving(everserve.ThreadingTCPServer(LOOPBACK, shout)) as address:
        assert ask(address) == b"PING"


def test_the_handler_may_be_replaced() -> None:
    server = everserve.TCPServer(LOOPBACK, lambda *_: None)
    server.RequestHandlerClass = Echo
    with serving(server) as address:
        assert ask(address) == b"ping"


def test_attributes_set_on_a_base_before_construction_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(everserve.TCPServer, "allow_reuse_address", True)
    monkeypatch.setattr(everserve.TCPServer, "request_queue_size", 3)
    with everserve.ThreadingTCPServer(LOOPBACK, Echo) as server:
        assert server.socket.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        assert server.request_queue_size == 3


@pytest.mark.parametrize("mix_in", ["", "Threading", "ThreadPool", "Fiber"])
def test_the_request_is_a_real_socket(mix_in: str) -> None:
    def reply(request: Any, *_: Any) -> None:
        real = isinstance(request, socket.socket) and request.fileno() >= 0
        request.sendall(b"%d %d" % (real, request.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)))

    with serving(getattr(everserve, f"{mix_in}TCPServer")(LOOPBACK, reply)) as address:
        assert ask(address, b"") == b"1 %d" % socket.SOCK_STREAM


@pytest.mark.parametrize("mix_in", ["", "Threading", "ThreadPool", "Fiber"])
def test_the_private_flag_ends_the_loop(mix_in: str) -> None:
    class Ending(everserve.BaseRequestHandler):
        def handle(self) -> None:
            self.server._BaseServer__shutdown_request = True
            self.request.sendall(b"ending")

    server = getattr(everserve, f"{mix_in}TCPServer")(LOOPBACK, Ending)
    with server:
        thread = Background(server.serve_forever, 3600)
        assert ask(server.server_address, b"") == b"ending"
        thread.result()


def test_the_private_event_shows_whether_it_serves() -> None:
    server = everserve.TCPServer(LOOPBACK, Echo)
    event = server._BaseServer__is_shut_down  # type: ignore[attr-defined]
    assert isinstance(event, threading.Event)
    assert not event.is_set()
    with serving(server) as address:
        assert ask(address) == b"ping"
        assert not event.is_set()
    assert event.is_set()


def test_a_subclass_may_do_all_of_shutdown_by_itself() -> None:
    class Old(everserve.TCPServer):
        def shutdown(self) -> None:
            self._BaseServer__shutdown_request = True
            assert self._BaseServer__is_shut_down.wait(LIMIT)  # type: ignore[attr-defined]

    with serving(Old(LOOPBACK, Echo)) as address:
        assert ask(address) == b"ping"


def test_a_custom_loop_over_handle_request() -> None:
    class Server(everserve.TCPServer):
        timeout = 0.001
        quiet = False

        def handle_timeout(self) -> None:
            self.quiet = True

    with Server(LOOPBACK, Echo) as server:
        with connect(server.server_address) as client:
            client.sendall(b"ping")
            while not server.quiet:
                server.handle_request()
            assert read_all(client) == b"ping"


def test_the_private_method_that_takes_one_request() -> None:
    with everserve.TCPServer(LOOPBACK, Echo) as server:
        with connect(server.server_address) as client:
            client.sendall(b"ping")
            server._handle_request_noblock()
            assert client.recv(100) == b"ping"


def test_a_base_server_that_calls_no_base_constructor_of_tcp() -> None:
    class Made(everserve.TCPServer):
        def __init__(self) -> None:
            everserve.BaseServer.__init__(self, LOOPBACK, Echo)
            self.socket = socket.create_server(LOOPBACK)
            self.server_address = self.socket.getsockname()

    with serving(Made()) as address:
        assert ask(address) == b"ping"


# -- the mix-ins on the standard library's servers ---------------------------------------------


MIX_INS = [
    pytest.param("ThreadingMixIn"),
    pytest.param("ThreadPoolMixIn"),
    pytest.param("FiberMixIn"),
    pytest.param("ForkingMixIn", marks=pytest.mark.filterwarnings(FORKS_AMONG_THREADS)),
]


@pytest.mark.parametrize("handlers", [everserve, standard], ids=["own", "standard"])
@pytest.mark.parametrize("mix_in", MIX_INS)
def test_on_the_standard_librarys_stream_server(mix_in: str, handlers: Any) -> None:
    class Shout(handlers.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(self.rfile.readline().upper())

    base = type("Server", (getattr(everserve, mix_in), standard.TCPServer), {})
    with serving(base(LOOPBACK, Shout), 0.01) as address:
        for _ in range(3):
            assert ask(address, b"ping\n") == b"PING\n"


@pytest.mark.parametrize("mix_in", MIX_INS)
def test_on_the_standard_librarys_datagram_server(mix_in: str) -> None:
    class Shout(everserve.DatagramRequestHandler):
        def handle(self) -> None:
            self.wfile.write(self.packet.upper())

    base = type("Server", (getattr(everserve, mix_in), standard.UDPServer), {})
    with serving(base(LOOPBACK, Shout), 0.01) as address:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(LIMIT)
            for _ in range(3):
                client.sendto(b"ping", address)
                assert client.recv(100) == b"PING"


@pytest.mark.parametrize("mix_in", MIX_INS)
def test_there_a_failure_ends_only_its_request(mix_in: str) -> None:
    class Server(getattr(everserve, mix_in), standard.TCPServer):  # type: ignore[misc]
        def handle_error(self, request: Any, client_address: Any) -> None:
            request.sendall(b"failed")

    def fail(request: Any, *_: Any) -> None:
        if request.recv(100) == b"fail":
            raise ValueError("meant to fail")
        request.sendall(b"well")

    with serving(Server(LOOPBACK, fail), 0.01) as address:
        assert ask(address, b"fail") == b"failed"
        assert ask(address, b"ping") == b"well"


def test_there_handle_request_works_with_the_mix_ins() -> None:
    for mix_in in (everserve.ThreadingMixIn, everserve.ThreadPoolMixIn, everserve.FiberMixIn):
        server = type("Server", (mix_in, standard.TCPServer), {})(LOOPBACK, Echo)
        with server:
            turn = Background(server.handle_request)
            assert ask(server.server_address) == b"ping"
            turn.result()


def test_standard_mix_ins_on_everserve_servers() -> None:
    class Server(standard.ThreadingMixIn, everserve.TCPServer):  # type: ignore[misc]
        pass

    server = Server(LOOPBACK, Echo)
    with server.running() as address:
        assert ask(address) == b"ping"
