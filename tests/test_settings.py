"""``settings``: an attribute is an option only where it has the option's type and range."""

from __future__ import annotations

import socketserver
import ssl
from collections.abc import Callable
from math import inf, nan
from typing import Any

import pytest

import everserve
from everserve.admission.access import AccessRules, Networks
from everserve.admission.control import POLICIES, OverloadPolicy
from everserve.admission.steps import STEPS, arm_deadlines
from everserve.combos import CONCURRENCY, server_class
from everserve.handlers.base import BaseRequestHandler
from everserve.mixins import ThreadPoolMixIn
from everserve.options import OPTIONS
from everserve.server.base import BaseServer
from everserve.server.tcp import TCPServer
from everserve.settings import NAMES, TYPES, LoopFactory, Settings, SettingsReader
from everserve.sockets.tls import TLS

TLS_VALUE = TLS.of(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
POLICY = OverloadPolicy(lambda *_: True)
TRANSPORTS = ("tcp", "udp", "unix", "unixgram")
CLASSES = [server_class(word, transport) for word in CONCURRENCY for transport in TRANSPORTS]
CLASSES += [server_class(word, "udp", sessions=True) for word in ("threads", "pool", "fibers")]

COUNTS = ("max_line", "max_connections", "max_connections_per_peer", "max_handshakes")
NUMBERS = (
    "reply_budget",
    "accept_rate_per_peer",
    "accept_rate",
    "accept_burst",
    "tls_reload_interval",
    "idle_timeout",
    "request_timeout",
    "write_timeout",
    "min_receive_rate",
    "stall_threshold",
)
TIMES = ("proxy_timeout", "handshake_timeout", "worker_idle_timeout")
FLAGS = ("ordered_peers", "proxy_protocol", "implicit_tls", "coalesce_writes")


@pytest.fixture(autouse=True)
def _no_lag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("everserve.settings.LAG", 0.0)


class Bag:
    """A server with just these attributes."""

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


DEFAULTS = Settings()

GOOD: dict[str, list[Any]] = {
    **{name: [None, 1, 7] for name in COUNTS},
    **{name: [None, 7, 0.5] for name in NUMBERS},
    **{name: [7, 0.5] for name in TIMES},
    **{name: [True, False] for name in FLAGS},
    "max_workers": [1, 7],
    "peer_queue": [1, 7],
    "peer_queue_drops": ["newest", "oldest"],
    "shutdown_grace": [0, 0.0, 7, 0.5],
    "loop_factory": [None, LoopFactory(list)],
    "overload": [*POLICIES, POLICY],
    "overload_message": [b"", b"busy"],
    "access": [AccessRules(), AccessRules(deny="::/0")],
    "admission_steps": [(), STEPS, (arm_deadlines,)],
    "trusted_proxies": [Networks(), Networks(["::1"])],
    "tls": [TLS_VALUE],
    "executor": [None, "threads:8", "processes:4", "interpreters:2", "dask://here:8786"],
}


class Unequal:
    """Cannot be compared."""

    def __eq__(self, other: object) -> bool:
        raise ValueError("the truth value is ambiguous")

    __hash__ = None  # type: ignore[assignment]


class Text(str):
    """A subclass of ``str``."""


class Whole(int):
    """A subclass of ``int``."""


def method(self: Any) -> None:
    """A method of the program."""


ANYTHING: list[Any] = [
    None, True, False, 0, 7, -1, 0.0, 0.5, -0.5, inf, nan, 1j, "", "7", "wait", "yes", Text("wait"),
    Whole(7), b"", b"busy", bytearray(b"busy"), (), (1,), [], [print], {}, print, method, int, object(),
    Unequal(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), AccessRules(), Networks(), POLICY, TLS_VALUE,
]  # fmt: skip


def read(name: str, value: Any) -> Any:
    server = Bag(**{name: value})
    return getattr(SettingsReader(server).values, name)


def counts(name: str, value: Any) -> bool:
    """True if ``value`` is a good one, or of a type of which every value is accepted."""
    kinds = {type(one) for one in GOOD[name]}
    if type(value) in kinds - {int, float, str, tuple}:
        return True
    return any(type(value) is type(one) and value == one for one in GOOD[name])


def test_the_table_is_complete() -> None:
    assert set(GOOD) == set(TYPES)


@pytest.mark.parametrize("name", TYPES)
def test_a_value_of_the_type_and_range_counts(name: str) -> None:
    for value in GOOD[name]:
        assert read(name, value) is value


@pytest.mark.parametrize("name", TYPES)
def test_a_value_of_another_type_or_range_does_not(name: str) -> None:
    for value in ANYTHING:
        expected = value if counts(name, value) else getattr(DEFAULTS, name)
        assert read(name, value) is expected, value


@pytest.mark.parametrize(
    ("name", "value", "taken"),
    [
        ("max_children", 3, 3),
        ("max_children", 3.5, 3),
        ("max_children", "3", 3),
        ("max_children", "many", 40),
        ("max_children", None, 40),
        ("daemon_threads", 1, True),
        ("daemon_threads", "", False),
        ("block_on_close", None, False),
        ("block_on_close", [1], True),
    ],
)
def test_an_attribute_of_the_standard_library_is_converted_as_there(
    name: str, value: Any, taken: Any
) -> None:
    assert read(name, value) == taken
    assert type(read(name, value)) is type(taken)


class NoTruth:
    def __bool__(self) -> bool:
        raise ValueError("neither")


def test_a_value_without_a_truth_value_is_not_an_option() -> None:
    assert read("daemon_threads", NoTruth()) is False
    assert read("block_on_close", NoTruth()) is True


def test_a_server_without_any_attribute_has_the_defaults() -> None:
    assert SettingsReader(Bag()).read() == DEFAULTS
    assert not DEFAULTS.trusted_proxies


@pytest.mark.parametrize("name", NAMES)
def test_a_property_that_raises_is_not_an_option(name: str) -> None:
    class Server:
        max_connections = 7

        def __init__(self) -> None:
            self.idle_timeout = 3.0

    @property  # type: ignore[misc]
    def fails(self: Any) -> Any:
        raise RuntimeError("not yet")

    setattr(Server, name, fails)
    if name == "idle_timeout":
        Server.__init__ = lambda self: None  # type: ignore[method-assign, assignment, misc]
    server = Server()
    values = SettingsReader(server).values
    assert getattr(values, name) == getattr(DEFAULTS, name)
    if name != "max_connections":
        assert values.max_connections == 7
    if name != "idle_timeout":
        assert values.idle_timeout == 3.0


def test_a_property_that_reads_the_settings_ends() -> None:
    """A property of the program's own may use the server: it is read when the server is made."""

    class Server(everserve.ThreadingTCPServer):
        @property
        def state(self) -> Any:
            raise AttributeError("not made yet")

        @property
        def access(self) -> Any:  # type: ignore[override]
            return self.made

    server = Server(("127.0.0.1", 0), everserve.BaseRequestHandler)
    with server:
        assert server._everserve.settings.read().access is None
        server.made = AccessRules(deny="::/0")
        assert server._everserve.settings.read().access is server.made


def test_values_that_cannot_be_compared() -> None:
    server = Bag(access=Unequal(), tls=Unequal(), max_connections=3)
    reader = SettingsReader(server)
    assert reader.read().max_connections == 3
    server.max_connections = 4
    assert reader.read().max_connections == 4
    server.access = Unequal()
    assert (reader.read().access, reader.read().tls) == (None, None)


def test_an_attribute_that_is_added_or_deleted_later() -> None:
    class Server(Bag):
        idle_timeout: float | None = None

    server = Server(tls=TLS_VALUE, overload="reset")
    reader = SettingsReader(server)
    assert reader.read().idle_timeout is None
    server.idle_timeout = 3.0
    assert reader.read().idle_timeout == 3.0
    del server.tls  # type: ignore[attr-defined]
    assert (reader.read().tls, reader.read().overload) == (None, "reset")


def test_an_option_that_the_class_lacks_has_no_meaning_later() -> None:
    server = Bag(overload="reset")
    reader = SettingsReader(server)
    server.idle_timeout = 3.0  # type: ignore[attr-defined]
    assert reader.read().idle_timeout is None
    assert SettingsReader(server).values.idle_timeout == 3.0


def test_a_change_counts_at_once_and_without_one_nothing_is_rebuilt() -> None:
    server = Bag(max_connections=None)
    reader = SettingsReader(server)
    first = reader.read()
    assert reader.read() is first
    server.max_connections = 5
    assert reader.read() is not first
    assert reader.values.max_connections == 5
    del server.max_connections
    assert reader.read().max_connections is None


def test_a_change_that_is_not_noted_counts_after_the_lag(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("everserve.settings.LAG", 1.0)
    monkeypatch.setattr("everserve.settings.monotonic", lambda: now)
    server = Bag(max_connections=None)
    reader = SettingsReader(server)
    server.max_connections = 5
    now += 0.5
    assert reader.read().max_connections is None
    now += 0.5
    assert reader.read().max_connections == 5
    server.max_connections = 6
    assert not reader.changed
    reader.note_change()
    assert reader.changed
    assert (reader.read().max_connections, reader.changed) == (6, False)


class FiberServer(everserve.FiberMixIn, socketserver.TCPServer):
    """A server of the standard library, under a mix-in."""


@pytest.mark.parametrize(
    ("kind", "name"), [(TCPServer, "max_connections"), (FiberServer, "stall_threshold")]
)
def test_setting_an_attribute_is_noted(kind: Any, name: str) -> None:
    with kind(("127.0.0.1", 0), everserve.BaseRequestHandler) as server:
        reader = server._everserve.settings
        reader.read()
        server.of_the_program = 3
        assert not reader.changed
        setattr(server, name, 3)
        assert reader.changed
        assert getattr(reader.read(), name) == 3


def test_it_keeps_no_server_alive_and_has_the_last_values() -> None:
    class Server:
        max_connections = 5

    server = Server()
    reader = SettingsReader(server)
    del server
    assert reader.read().max_connections == 5
    assert reader.values.max_connections == 5


def test_a_server_that_was_freed_before_it_was_complete() -> None:
    class Server:
        @property
        def tls(self) -> Any:
            raise RuntimeError

    server = Server()
    reader = SettingsReader(server)
    del server
    assert reader.read() == DEFAULTS


@pytest.mark.parametrize(
    ("settings", "steps", "first"),
    [
        ({}, False, False),
        ({"tls": TLS_VALUE}, True, True),
        ({"tls": TLS_VALUE, "implicit_tls": False}, True, False),
        ({"proxy_protocol": True}, True, False),
        ({"idle_timeout": 1}, True, False),
        ({"request_timeout": 1}, True, False),
        ({"write_timeout": 1}, True, False),
        ({"min_receive_rate": 1}, True, False),
        ({"overload": "shed-idle"}, True, False),
        ({"overload": "refuse"}, False, False),
        ({"admission_steps": ()}, True, False),
        ({"handshake_timeout": 1}, False, False),
    ],
)
def test_derived_fields(settings: dict[str, Any], steps: bool, first: bool) -> None:
    values = Settings(**settings)
    assert (values.takes_steps, values.handshakes_first) == (steps, first)


# -- the classes and the tables agree ------------------------------------------------------------

OWN_DEFAULTS = {
    ("AsyncMixIn", "coalesce_writes"): True,
    ("FiberMixIn", "coalesce_writes"): True,
    ("ThreadPoolMixIn", "daemon_threads"): True,
    ("DatagramSessionMixIn", "idle_timeout"): 60.0,
    ("DatagramSessionMixIn", "overload"): "refuse",
}


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_a_class_attribute_has_the_options_default(kind: type) -> None:
    own = {
        name: value
        for (base, name), value in OWN_DEFAULTS.items()
        if any(one.__name__ == base for one in kind.__mro__)
    }
    for name, option in OPTIONS.items():
        if hasattr(kind, name):
            value, default = getattr(kind, name), own.get(name, option.default)
            assert type(value) is type(default), name
            assert value is default or value == default or not (value or default), name


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_a_class_attribute_has_the_options_type(kind: type) -> None:
    for name, has_type in TYPES.items():
        if hasattr(kind, name) and getattr(kind, name) is not None:
            assert has_type(getattr(kind, name)), name


def test_each_setting_is_an_option_and_an_attribute() -> None:
    assert set(NAMES) <= set(OPTIONS)
    assert {name for kind in CLASSES for name in NAMES if hasattr(kind, name)} == set(NAMES)


def test_each_option_of_admission_is_on_the_base_of_all_servers() -> None:
    of_strategies = {
        "max_workers", "worker_idle_timeout", "max_children", "stall_threshold", "shutdown_grace",
        "daemon_threads", "block_on_close", "ordered_peers", "peer_queue", "peer_queue_drops",
        "reply_budget", "loop_factory", "executor",
    }  # fmt: skip
    assert {name for name in NAMES if not hasattr(BaseServer, name)} == of_strategies


class ModuleOfTheProgram(ThreadPoolMixIn, TCPServer):
    """Sets the option, in a module of whatever name."""

    __module__ = "everserve.mixins"
    daemon_threads = True


class WithoutOwn(ThreadPoolMixIn, TCPServer):
    """Has the default of the mix-in."""


class OnInstance(ThreadPoolMixIn, TCPServer):
    """Sets it on the instance."""

    def __init__(self, *arguments: Any) -> None:
        self.daemon_threads = True
        super().__init__(*arguments)


@pytest.mark.parametrize(
    ("kind", "is_set"), [(ModuleOfTheProgram, True), (WithoutOwn, False), (OnInstance, True)]
)
def test_the_default_of_a_mix_in_was_not_set_by_the_program(
    kind: Callable[..., TCPServer], is_set: bool
) -> None:
    with kind(("127.0.0.1", 0), BaseRequestHandler) as server:
        assert server._everserve.settings.is_set("daemon_threads") is is_set
