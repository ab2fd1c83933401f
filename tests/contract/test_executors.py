"""The contract of message handlers once more, where an executor of threads handles the messages."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.clients import LIMIT
from tests.contract.kinds import Client, Strategy, Transport, make_server_class
from tests.contract.test_messages import (
    test_a_bad_message_is_the_fault_of_the_peer as test_a_bad_message_is_the_fault_of_the_peer,
)
from tests.contract.test_messages import (
    test_a_message_and_its_reply as test_a_message_and_its_reply,
)
from tests.contract.test_messages import (
    test_a_push_to_a_connection_found_by_its_key as test_a_push_to_a_connection_found_by_its_key,
)
from tests.contract.test_messages import (
    test_a_stop_ends_what_waits_between_messages as test_a_stop_ends_what_waits_between_messages,
)
from tests.contract.test_messages import (
    test_an_error_ends_its_connection_alone as test_an_error_ends_its_connection_alone,
)
from tests.contract.test_messages import (
    test_more_than_one_turn_takes as test_more_than_one_turn_takes,
)
from tests.contract.test_messages import (
    test_no_context_leaks_into_another_connection as test_no_context_leaks_into_another_connection,
)
from tests.contract.test_messages import (
    test_the_hooks_in_their_order as test_the_hooks_in_their_order,
)
from tests.contract.test_messages import (
    test_the_object_is_the_session as test_the_object_is_the_session,
)

from everserve.messages import LineRequestHandler

pytestmark = pytest.mark.usefixtures("executed")


@pytest.fixture
def make_server(
    strategy: Strategy, transport: Transport, tmp_path: Path
) -> Iterator[Callable[..., Any]]:
    """``make_server(handler)``: a server of a message handler, with an executor."""
    servers: list[Any] = []

    def make(handler: type, **attributes: Any) -> Any:
        made = make_server_class(strategy, transport, executor="threads:2", **attributes)
        servers.append(made(transport.address(tmp_path), handler))
        servers[-1].serving = lambda: servers[-1].running(grace=LIMIT)
        return servers[-1]

    yield make
    for server in servers:
        server.server_close()


@pytest.fixture
def here(strategy: Strategy) -> Strategy:
    """The strategy: both run their handlers in this process."""
    return strategy


@pytest.fixture
def parking(strategy: Strategy) -> Strategy:
    """The strategy: both park connections."""
    return strategy


class Where(LineRequestHandler[Any, Any]):
    """Replies with the thread that handles a message; also in the steps of an iterator."""

    def handle_message(self, message: bytes) -> Any:
        name = threading.current_thread().name.encode()
        if message == b"steps":
            return (threading.current_thread().name.encode() for _ in range(2))
        return name


def test_messages_are_handled_in_the_executor(
    make_server: Any, make_client: Callable[[Any], Client]
) -> None:
    server = make_server(Where)
    with server.serving():
        client = make_client(server)
        assert client.ask(b"a\n") == b"everserve-executor\n"
        assert client.ask(b"steps\n") == b"everserve-executor\n"
        assert client.receive() == b"everserve-executor\n"
