"""Options: the table and the classes agree; errors name what is accepted."""

import ssl
from typing import Any

import pytest

import everserve
from everserve.errors import OptionError, TLSConfigError
from everserve.options import OPTIONS, check

SERVERS = [
    value
    for name in everserve.__all__
    if isinstance(value := getattr(everserve, name), type)
    and issubclass(value, everserve.TCPServer)
]


@pytest.mark.parametrize("name", OPTIONS)
def test_each_option_is_a_class_attribute_of_some_server(name: str) -> None:
    assert any(hasattr(server, name) for server in SERVERS)


@pytest.mark.parametrize(
    ("name", "value", "checked"),
    [
        ("max_workers", 4, 4),
        ("request_queue_size", 0, 0),
        ("worker_idle_timeout", 0.5, 0.5),
        ("allow_reuse_port", True, True),
    ],
)
def test_good_values(name: str, value: Any, checked: Any) -> None:
    assert check({name: value}, everserve.ThreadPoolTCPServer) == {name: checked}


@pytest.mark.parametrize(("value", "mode"), [("0o660", 0o660), ("660", 0o660), (0o600, 0o600)])
def test_a_mode_is_octal(value: Any, mode: int) -> None:
    assert check({"socket_mode": value}, everserve.UnixStreamServer) == {"socket_mode": mode}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_workers", 0),
        ("max_workers", -1),
        ("max_workers", 1.5),
        ("max_workers", True),
        ("max_workers", "many"),
        ("max_workers", None),
        ("worker_idle_timeout", 0),
        ("worker_idle_timeout", float("inf")),
        ("worker_idle_timeout", True),
        ("allow_reuse_port", 1),
        ("allow_reuse_port", "yes"),
    ],
)
def test_an_error_names_the_accepted_values(name: str, value: Any) -> None:
    with pytest.raises(OptionError, match=rf"{name} = .*: expected {OPTIONS[name].wanted}"):
        check({name: value}, everserve.ThreadPoolTCPServer)


@pytest.mark.parametrize("value", ["8", "0o1000", -1, []])
def test_a_bad_mode(value: Any) -> None:
    with pytest.raises(OptionError, match="expected permission bits"):
        check({"socket_mode": value}, everserve.UnixStreamServer)


def test_the_error_of_an_unknown_name_suggests_a_similar_one() -> None:
    with pytest.raises(OptionError, match="no option 'max_worker'; did you mean 'max_workers'"):
        check({"max_worker": 4}, everserve.ThreadPoolTCPServer)
    with pytest.raises(OptionError, match="there are max_workers, "):
        check({"zzz": 4}, everserve.ThreadPoolTCPServer)


def test_an_option_of_another_kind_of_server() -> None:
    with pytest.raises(OptionError, match="max_workers has no meaning for a TCPServer"):
        check({"max_workers": 4}, everserve.TCPServer)


def test_a_context_for_clients_has_its_own_message() -> None:
    with pytest.raises(TLSConfigError, match="a context for clients"):
        OPTIONS["tls"].check(ssl.create_default_context())


@pytest.mark.parametrize("name", [n for n, option in OPTIONS.items() if option.default is None])
def test_none_is_accepted_if_it_is_the_default(name: str) -> None:
    of_streams = OPTIONS[name].of_streams
    kind: type = everserve.FiberSessionUnixDatagramServer
    if of_streams and name != "idle_timeout":
        kind = everserve.UnixStreamServer
    if name == "loop_factory":
        kind = everserve.AsyncUnixStreamServer
    assert check({name: None}, kind) == {name: None}


def test_none_is_refused_if_the_default_is_another_value() -> None:
    with pytest.raises(OptionError, match="handshake_timeout"):
        check({"handshake_timeout": None}, everserve.TCPServer)
