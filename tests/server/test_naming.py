"""``name_of``: what events call a server."""

from types import SimpleNamespace

from everserve.server.naming import name_of
from everserve.server.tcp import TCPServer


def test_the_name_has_the_handler_and_the_address() -> None:
    with TCPServer(("127.0.0.1", 0), print) as server:
        port = server.server_address[1]
        assert name_of(server) == f"print on tcp://127.0.0.1:{port}"
    assert name_of(server) == f"print on ('127.0.0.1', {port})"


def test_a_server_of_another_kind_has_a_name_too() -> None:
    assert name_of(SimpleNamespace()) == "NoneType on None"
