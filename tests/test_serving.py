"""``make_server`` and ``serve``: servers from a handler, an address and the name of a strategy."""

import inspect
import os
import re
import socket
import stat
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from tests.certificates import Certificates
from tests.clients import LIMIT, Background

import everserve
from everserve.admission.control import POLICIES
from everserve.combos import CONCURRENCY
from everserve.errors import AddressError, HandlerError, OptionError
from everserve.events import ServerEvent, Stopped
from everserve.lifecycle.state import ServerState
from everserve.options import OPTIONS
from everserve.server.servingthread import ServingThread
from everserve.serving import Concurrency, ServerOptions, make_group
from everserve.settings import PEER_QUEUE_DROPS

FORKS_AMONG_THREADS = "ignore:This process .* is multi-threaded:DeprecationWarning"
CONCURRENCIES = [
    pytest.param(word, marks=pytest.mark.filterwarnings(FORKS_AMONG_THREADS))
    if word == "forks"
    else word
    for word in CONCURRENCY
]


class Upper(everserve.StreamRequestHandler[Any, Any]):
    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line.upper())


class UpperDatagram(everserve.DatagramRequestHandler[Any, Any]):
    def handle(self) -> None:
        self.wfile.write(self.packet.upper())


def ask(address: Any, family: int = socket.AF_INET) -> bytes:
    with socket.socket(family) as client:
        client.connect(address)
        client.sendall(b"hello\n")
        answer = client.makefile("rb").readline()
        client.shutdown(socket.SHUT_RDWR)  # a forked child has a copy of it
        return answer


@pytest.mark.parametrize("concurrency", CONCURRENCIES)
def test_each_strategy_serves(concurrency: str) -> None:
    server = everserve.make_server(Upper, "tcp://127.0.0.1:0", concurrency=concurrency)
    with server.running() as address:
        assert ask(address) == b"HELLO\n"


def test_modern_defaults() -> None:
    with everserve.make_server(Upper, "tcp://127.0.0.1:0") as server:
        assert isinstance(server, everserve.FiberTCPServer)
        assert server.socket.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        assert server.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_accepted_connections_inherit_the_option() -> None:
    seen: list[int] = []

    class Look(everserve.BaseRequestHandler[Any, Any]):
        def handle(self) -> None:
            seen.append(self.request.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    with everserve.make_server(Look, "tcp://127.0.0.1:0").running() as address:
        with socket.create_connection(address) as client:
            assert client.recv(1) == b""
    assert seen == [1]


def test_settings_win_over_the_defaults() -> None:
    server = everserve.make_server(
        Upper,
        "tcp://127.0.0.1:0",
        concurrency="pool",
        disable_nagle_algorithm=False,
        max_workers=3,
    )
    with server:
        assert not server.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert server.max_workers == 3  # type: ignore[attr-defined]


def test_ipv6() -> None:
    with everserve.make_server(Upper, "tcp://[::1]:0").running() as address:
        assert ask(address[:2], socket.AF_INET6) == b"HELLO\n"


def test_all_interfaces_takes_both_families() -> None:
    with everserve.make_server(Upper, "tcp://*:0").running() as address:
        assert ask(("127.0.0.1", address[1])) == b"HELLO\n"
        assert ask(("::1", address[1]), socket.AF_INET6) == b"HELLO\n"


def test_datagrams() -> None:
    server = everserve.make_server(UpperDatagram, "udp://127.0.0.1:0", concurrency="serial")
    with server.running() as address, socket.socket(type=socket.SOCK_DGRAM) as client:
        client.sendto(b"hello", address)
        assert client.recv(100) == b"HELLO"


def test_a_unix_socket_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    server = everserve.make_server(Upper, f"unix:{path}", socket_mode="0o600")
    with server.running() as address:
        assert ask(address, socket.AF_UNIX) == b"HELLO\n"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.exists()


@pytest.mark.parametrize("no_delay", [None, True, False])
def test_an_inherited_listener_has_the_options_of_one(no_delay: bool | None) -> None:
    options: Any = {} if no_delay is None else {"disable_nagle_algorithm": no_delay}
    listener = socket.create_server(("127.0.0.1", 0))
    where = listener.getsockname()
    server = everserve.make_server(
        Upper,
        f"fd://{listener.detach()}",
        allow_reuse_port=True,
        keep_alive=33,
        tcp_user_timeout=44,
        **options,
    )
    with server, socket.create_connection(where):
        assert server.server_address == where
        assert server.address_family == socket.AF_INET
        assert server.socket.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
        accepted, _ = server.get_request()
        with accepted:
            found = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert bool(found) is (no_delay is not False)
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 33
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 44_000


def test_an_inherited_listener_finds_dead_peers() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    server = everserve.make_server(
        Upper, f"fd://{listener.detach()}", keep_alive=20, tcp_user_timeout=30
    )
    with server:
        assert server.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert server.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 20
        assert server.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000


@pytest.mark.parametrize("both", [True, False])
def test_what_must_be_set_before_binding_cannot_be_asked_of_an_inherited_listener(
    both: bool,
) -> None:
    with socket.socket(socket.AF_INET6) as listener:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, both)
        listener.bind(("::", 0))
        listener.listen()
        with pytest.raises(OptionError, match="is bound already"):
            everserve.make_server(Upper, f"fd://{listener.fileno()}", dual_stack=both)
        assert listener.getsockname()[1]
        inherited = os.dup(listener.fileno())
        everserve.make_server(Upper, f"fd://{inherited}", dual_stack=not both).server_close()


def test_the_mode_of_an_inherited_socket_file(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        with pytest.raises(OptionError, match="where it is opened"):
            everserve.make_server(Upper, f"fd://{listener.fileno()}", socket_mode=0o600)
        assert listener.getsockname()


def test_an_inherited_listener() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    server = everserve.make_server(Upper, f"fd://{listener.detach()}", request_queue_size=2)
    with server.running() as bound:
        assert bound == address
        assert ask(address) == b"HELLO\n"


def test_an_inherited_socket_that_does_not_listen_yet() -> None:
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    with everserve.make_server(Upper, f"fd://{bound.detach()}").running() as address:
        assert ask(address) == b"HELLO\n"


def test_an_inherited_datagram_socket() -> None:
    bound = socket.socket(type=socket.SOCK_DGRAM)
    bound.bind(("127.0.0.1", 0))
    server = everserve.make_server(UpperDatagram, f"fd://{bound.detach()}", concurrency="serial")
    with server.running() as address, socket.socket(type=socket.SOCK_DGRAM) as client:
        client.sendto(b"hello", address)
        assert client.recv(100) == b"HELLO"


def test_a_connection_is_refused_as_a_listener() -> None:
    left, right = socket.socketpair()
    with left, right:
        with pytest.raises(OSError, match="not a listening socket") as caught:
            everserve.make_server(Upper, f"fd://{left.fileno()}")
        assert caught.value.filename == f"fd://{left.fileno()}"
        left.sendall(b"still mine")


def test_a_file_is_refused_as_a_listener(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        with pytest.raises(OSError, match="fd://"):
            everserve.make_server(Upper, f"fd://{file.fileno()}")


def test_a_used_port_is_named() -> None:
    with everserve.make_server(Upper, "tcp://127.0.0.1:0") as first:
        host, port = first.server_address
        with pytest.raises(OSError, match=f"in use: '{host}:{port}'"):
            everserve.make_server(Upper, f"tcp://{host}:{port}")


def test_unknown_arguments() -> None:
    with pytest.raises(
        OptionError, match="concurrency = 'magic': there are fibers, serial, threads"
    ):
        everserve.make_server(Upper, "tcp://127.0.0.1:0", concurrency="magic")
    with pytest.raises(OptionError, match="no option 'colour'"):
        everserve.make_server(Upper, "tcp://127.0.0.1:0", colour=1)
    with pytest.raises(AddressError, match="no address to serve on"):
        everserve.serve(Upper)


def test_a_grace_is_a_number_of_seconds() -> None:
    for grace in ("5", None, -1, float("nan"), True):
        with pytest.raises(
            OptionError, match=f"grace = {grace!r}: expected seconds, a number from"
        ):
            everserve.serve(Upper, "tcp://127.0.0.1:0", grace=grace)  # type: ignore[call-overload]
        with everserve.TCPServer(("127.0.0.1", 0), Upper) as server:
            with pytest.raises(OptionError, match="grace"):
                server.stop(grace)  # type: ignore[arg-type]
            with pytest.raises(OptionError, match="grace"), server.running(grace=grace):  # type: ignore[arg-type]
                pass
            assert server.state is everserve.ServerState.READY


class Coroutine(everserve.BaseRequestHandler[Any, Any]):
    async def handle(self) -> None:  # type: ignore[override]
        """Nothing awaits it."""


class OfDatagrams(everserve.DatagramRequestHandler[Any, Any]):
    def handle(self) -> None:
        """Nothing to do."""


@pytest.mark.parametrize(
    ("handler", "words"),
    [
        (None, "None is no request handler: give a class with handle()"),
        ("app:Upper", "'app:Upper' is a text: import the class"),
        ("tcp://127.0.0.1:0", "is an address: the handler comes first"),
        (everserve, "everserve is a module"),
        (everserve.TCPServer, "TCPServer is a server class"),
        (Coroutine, "Coroutine.handle is 'async def'"),
        (OfDatagrams, "OfDatagrams is for datagrams: for streams inherit StreamRequestHandler"),
    ],
)
def test_what_is_no_handler_is_refused_before_anything_is_bound(handler: Any, words: str) -> None:
    for make in (everserve.serve, everserve.make_server, everserve.make_group):
        with pytest.raises(HandlerError, match=re.escape(words)):
            make(handler, "tcp://127.0.0.1:0")
    with pytest.raises(HandlerError, match=re.escape(words)):
        make_group({"tcp://127.0.0.1:0": handler})


@pytest.mark.parametrize("address", ["udp://127.0.0.1:0", "unixgram:@everserve-test-streams"])
def test_a_handler_of_streams_is_refused_for_datagrams(address: str) -> None:
    with pytest.raises(HandlerError, match=f"^{address}: Upper is for streams: for datagrams"):
        everserve.make_server(Upper, address)


def test_a_handler_of_another_kind_leaves_an_inherited_socket_open() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as inherited:
        inherited.bind(("127.0.0.1", 0))
        with pytest.raises(HandlerError, match="Upper is for streams"):
            everserve.make_server(Upper, f"fd://{inherited.fileno()}")
        assert inherited.getsockname()[1]


def test_swapped_arguments_and_other_forms_of_an_address() -> None:
    with pytest.raises(HandlerError, match="the handler comes first"):
        everserve.serve("tcp://127.0.0.1:0", Upper)  # type: ignore[call-overload]
    with pytest.raises(AddressError, match=r"write 'tcp://127\.0\.0\.1:9999'"):
        everserve.serve(Upper, ("127.0.0.1", 9999))  # type: ignore[call-overload]


# --- several addresses -------------------------------------------------------------------------------


class Stopping(everserve.StreamRequestHandler[Any, Any]):
    """Replies with its name, and stops its server."""

    name = b"first"

    def handle(self) -> None:
        self.rfile.readline()
        self.wfile.write(self.name + b"\n")
        threading.Thread(target=self.server.stop).start()


class StoppingToo(Stopping):
    name = b"second"


def answers_of(paths: list[str]) -> Background:
    """The answer at each path, read one after the other, once it is bound."""

    def ask_all() -> list[bytes]:
        answers = []
        for path in paths:
            with socket.socket(socket.AF_UNIX) as client:
                while client.connect_ex(path):
                    pass  # not bound yet
                client.sendall(b"go\n")
                answers.append(client.makefile("rb").readline())
        return answers

    return Background(ask_all)


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    return [str(tmp_path / name) for name in ("a", "b")]


@pytest.mark.parametrize("concurrency", CONCURRENCIES)
def test_serve_runs_on_several_addresses_until_each_has_stopped(
    paths: list[str], concurrency: Concurrency
) -> None:
    answers = answers_of(paths)
    report = everserve.serve(Stopping, *(f"unix:{path}" for path in paths), concurrency=concurrency)
    assert answers.result() == [b"first\n", b"first\n"]
    assert (report.cut, report.unfinished) == ((), ())
    assert not any(map(os.path.exists, paths))


@pytest.mark.parametrize("concurrency", CONCURRENCIES)
def test_each_address_may_have_its_own_handler(paths: list[str], concurrency: Concurrency) -> None:
    first, second = paths
    answers = answers_of(paths)
    report = everserve.serve(
        {f"unix:{first}": Stopping, f"unix:{second}": StoppingToo}, concurrency=concurrency
    )
    assert answers.result() == [b"first\n", b"second\n"]
    assert (report.cut, report.unfinished) == ((), ())


def test_a_group_is_bound_and_does_not_serve_yet() -> None:
    with make_group(Upper, "tcp://127.0.0.1:0", "tcp://[::1]:0", concurrency="threads") as group:
        assert group.addresses == tuple(server.server_address for server in group.servers)
        assert [address[0] for address in group.addresses] == ["127.0.0.1", "::1"]
        for server in group.servers:
            assert isinstance(server, everserve.ThreadingTCPServer)
            assert server.state is ServerState.READY
    for server in group.servers:
        assert server.fileno() == -1


@pytest.mark.parametrize("concurrency", CONCURRENCIES)
def test_a_group_serves_streams_and_datagrams_in_one_thread(concurrency: Concurrency) -> None:
    handlers = {"tcp://127.0.0.1:0": Upper, "udp://127.0.0.1:0": UpperDatagram}
    events: list[Any] = []
    group = make_group(handlers, concurrency=concurrency)
    group.subscribe(events.append)
    with group.running(grace=LIMIT) as (stream, datagram):
        assert [type(t) for t in threading.enumerate()].count(ServingThread) == 1
        assert ask(stream) == b"HELLO\n"
        with socket.socket(type=socket.SOCK_DGRAM) as client:
            client.settimeout(LIMIT)
            client.sendto(b"hello", datagram)
            assert client.recv(100) == b"HELLO"
    assert [type(event) for event in events].count(Stopped) == 2


def test_all_servers_of_a_group_have_the_options() -> None:
    addresses = ["tcp://127.0.0.1:0", "unix:@everserve-test"]
    with make_group(Upper, *addresses, max_connections=7, idle_timeout=3) as group:
        assert [server.max_connections for server in group.servers] == [7, 7]
        assert [server.idle_timeout for server in group.servers] == [3.0, 3.0]


def test_no_address_and_too_many_addresses() -> None:
    with pytest.raises(AddressError, match="no address to serve on"):
        make_group({})
    with pytest.raises(AddressError, match=r"has the addresses: .*:1'.* are too many"):
        make_group({"tcp://127.0.0.1:0": Upper}, "tcp://127.0.0.1:1")
    with pytest.raises(AddressError, match="nowhere"):
        everserve.serve({"nowhere": Upper})


@pytest.mark.parametrize("as_mapping", [True, False])
def test_nothing_stays_bound_when_a_later_address_fails(as_mapping: bool) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    addresses = [f"tcp://127.0.0.1:{port}", "tcp://192.0.2.1:1"]
    what: list[Any] = [dict.fromkeys(addresses, Upper)] if as_mapping else [Upper, *addresses]
    with pytest.raises(OSError, match="assign"):
        everserve.serve(*what)
    with socket.create_server(("127.0.0.1", port)):
        pass


# --- types -------------------------------------------------------------------------------------------

HINTS = get_type_hints(ServerOptions)


def test_the_typed_options_are_those_of_the_table() -> None:
    assert list(HINTS) == [name for name in OPTIONS if name in HINTS]  # in the same order
    assert set(HINTS) == set(OPTIONS)
    assert ServerOptions.__required_keys__ == frozenset()


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_may_be_none_if_the_table_allows_it(name: str) -> None:
    assert (type(None) in get_args(HINTS[name])) is OPTIONS[name].may_be_none


@pytest.mark.parametrize("name", OPTIONS)
def test_the_default_is_of_the_options_type(name: str) -> None:
    kinds = [get_origin(kind) or kind for kind in get_args(HINTS[name]) or (HINTS[name],)]
    option = OPTIONS[name]
    assert (kinds == [bool]) is option.is_flag
    if name == "overload":
        assert option.default in get_args(get_args(HINTS[name])[0])
        assert get_args(get_args(HINTS[name])[0]) == POLICIES
    elif name == "peer_queue_drops":
        assert get_args(HINTS[name]) == PEER_QUEUE_DROPS
    elif name == "admission_steps":
        assert isinstance(option.default, Iterable)
    elif option.default is not None:
        kind = int if type(option.default) is int else type(option.default)
        assert kind in kinds or (kind is int and float in kinds)


@pytest.mark.parametrize("function", [everserve.serve, everserve.make_server, make_group])
def test_all_functions_accept_the_typed_options(function: Any) -> None:
    signature = inspect.signature(function)
    (options,) = [p for p in signature.parameters.values() if p.kind is p.VAR_KEYWORD]
    assert options.annotation == "Unpack[ServerOptions]"
    assert signature.parameters["concurrency"].annotation == "Concurrency"


# --- fit for the internet ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


def ask_securely(address: Any, certificates: Certificates) -> bytes:
    context = certificates.client_context()
    with socket.create_connection(address[:2]) as raw:
        with context.wrap_socket(raw, server_hostname="localhost") as client:
            client.sendall(b"hello\n")
            line = client.makefile("rb").readline()
            client.shutdown(socket.SHUT_RDWR)  # a forked child has a copy of this very socket
            return line


@pytest.mark.parametrize("concurrency", CONCURRENCIES)
def test_tls(concurrency: str, certificates: Certificates) -> None:
    tls = everserve.TLS(*certificates.server)
    server = everserve.make_server(Upper, "tls://127.0.0.1:0", concurrency=concurrency, tls=tls)
    with server.running() as address:
        assert ask_securely(address, certificates) == b"HELLO\n"


def test_tls_needs_a_certificate_and_a_stream(certificates: Certificates) -> None:
    tls = everserve.TLS(*certificates.server)
    with pytest.raises(OptionError, match="needs a certificate"):
        everserve.make_server(Upper, "tls://127.0.0.1:0")
    with pytest.raises(OptionError, match="tls has no meaning for datagrams"):
        everserve.make_server(UpperDatagram, "udp://127.0.0.1:0", tls=tls)
    with pytest.raises(OptionError, match=r"tls = 'cert.pem': expected an everserve\.TLS"):
        everserve.make_server(Upper, "tls://127.0.0.1:0", tls="cert.pem")


def test_tls_on_one_of_two_addresses(certificates: Certificates) -> None:
    tls = everserve.TLS(*certificates.server)
    group = make_group(Upper, "tls://127.0.0.1:0", "tcp://127.0.0.1:0", tls=tls)
    with group.running() as (secure, plain):
        assert ask_securely(secure, certificates) == b"HELLO\n"
        assert ask(plain) == b"HELLO\n"


def test_a_proxy_must_be_trusted_by_name() -> None:
    with pytest.raises(OptionError, match="proxy_protocol needs trusted_proxies"):
        everserve.make_server(Upper, "tcp://127.0.0.1:0", proxy_protocol=True)
    server = everserve.make_server(
        Upper, "tcp://127.0.0.1:0", proxy_protocol=True, trusted_proxies=["127.0.0.1"]
    )
    with server.running() as address, socket.create_connection(address) as client:
        client.sendall(b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 80\r\nhello\n")
        assert client.recv(100) == b"HELLO\n"


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("overload", "shed-idle", "shed-idle"),
        ("overload_message", r"busy\r\n", b"busy\r\n"),
        ("overload_message", "zu voll \u00e4", "zu voll \u00e4".encode()),
        ("accept_rate", 0.5, 0.5),
        ("accept_burst", 3, 3.0),
        ("max_handshakes", 10, 10),
        ("idle_timeout", 2.5, 2.5),
        ("min_receive_rate", 100, 100.0),
        ("implicit_tls", False, False),
    ],
)
def test_settings_of_admission(name: str, text: Any, value: Any) -> None:
    with everserve.make_server(Upper, "tcp://127.0.0.1:0", **{name: text}) as server:
        assert getattr(server, name) == value


def test_access_as_a_text() -> None:
    with everserve.make_server(Upper, "tcp://127.0.0.1:0", access="deny 10.0.0.0/8") as server:
        assert server.access is not None
        assert not server.access.permits(("10.1.2.3", 1))


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        (
            "overload",
            "drop",
            "overload = .drop.: expected one of wait, refuse, reset, shed-idle, or a callable",
        ),
        ("access", "10.0.0.0/8", "write 'allow 10.0.0.0/8"),
        ("trusted_proxies", "somewhere", "not a network: 'somewhere'"),
        ("idle_timeout", 0, "idle_timeout = 0: expected seconds, more than 0"),
        ("idle_timeout", "5", "idle_timeout = '5': expected seconds, more than 0, not a text"),
        ("max_connections", "many", "max_connections = 'many': expected a number from 1 up"),
        ("accept_rate", -1, "accept_rate = -1: expected a number, more than 0"),
        ("max_handshakes", 0, "max_handshakes = 0: expected a number from 1 up"),
        ("admission_steps", [1], "admission_steps = \\[1\\]: expected callables"),
    ],
)
def test_values_that_are_not_accepted(name: str, value: Any, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        everserve.make_server(Upper, "tcp://127.0.0.1:0", **{name: value})


@pytest.mark.parametrize(
    "name",
    ["idle_timeout", "write_timeout", "handshake_timeout", "proxy_timeout", "tls_reload_interval"],
)
def test_options_of_streams_are_refused_for_datagrams(name: str) -> None:
    with pytest.raises(OptionError, match=f"{name} has no meaning for a FiberUDPServer"):
        everserve.make_server(UpperDatagram, "udp://127.0.0.1:0", **{name: 1})
    with everserve.make_server(UpperDatagram, "udp://127.0.0.1:0", request_timeout=1):
        pass


# -- watching serve() ----------------------------------------------------------------------------


def test_serve_tells_where_it_serves_and_how_it_ended(caplog: pytest.LogCaptureFixture) -> None:
    events: list[ServerEvent] = []
    addresses: list[Any] = []

    def ready(servers: Any) -> None:
        addresses.extend(server.server_address for server in servers)
        for server in servers:
            threading.Thread(target=server.stop).start()

    with caplog.at_level("INFO", logger="everserve"):
        report = everserve.serve(
            {"tcp://127.0.0.1:0": Upper, "udp://127.0.0.1:0": UpperDatagram},
            on_ready=ready,
            subscribe=events.append,
        )
    first, second = (f"127.0.0.1:{address[1]}" for address in addresses)
    names = [f"Upper on tcp://{first}", f"UpperDatagram on udp://{second}"]
    lines = [r.getMessage() for r in caplog.records if r.levelname == "INFO"]
    assert lines == [*(f"serving {name}" for name in names), f"ended: {report}"]
    assert {e.server for e in events if isinstance(e, Stopped)} == set(names)


@pytest.mark.parametrize("name", ["on_ready", "subscribe"])
def test_what_is_to_be_called_must_be_callable(name: str) -> None:
    options: Any = {name: 5}
    with pytest.raises(OptionError, match=f"{name} = 5: expected a function of one argument"):
        everserve.serve(Upper, "tcp://127.0.0.1:0", **options)


def test_serve_tells_of_an_error_that_ends_it(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="everserve"), pytest.raises(ZeroDivisionError):
        everserve.serve(Upper, "tcp://127.0.0.1:0", on_ready=lambda servers: 1 // 0)
    assert caplog.records[-1].getMessage().startswith("ended by an error: ZeroDivisionError")
