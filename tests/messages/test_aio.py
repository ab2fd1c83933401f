"""Message handlers with coroutines: what the contract suite does not have."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, ClassVar

import pytest
from tests.clients import LIMIT

import everserve
from everserve import fibers
from everserve.errors import HandlerError, HubError
from everserve.messages import LineRequestHandler


class Upper(LineRequestHandler[Any, Any]):
    async def handle_message(self, message: bytes) -> bytes:
        await asyncio.sleep(0)
        return message.upper()


def make(handler: type) -> Any:
    return everserve.AsyncTCPServer(("127.0.0.1", 0), handler)


def connect(server: Any) -> socket.socket:
    return socket.create_connection(server.server_address, LIMIT)


@pytest.mark.parametrize("concurrency", ["fibers", "pool", "threads", "forks", "serial"])
def test_elsewhere_it_is_one_error_when_the_server_is_made(concurrency: Any) -> None:
    with pytest.raises(HandlerError) as caught:
        everserve.make_server(Upper, "tcp://127.0.0.1:0", concurrency=concurrency)
    assert str(caught.value) == (
        "Upper.handle_message is 'async def', and nothing awaits it: write 'def' and blocking calls,"
        " or use concurrency='asyncio'"
    )


@pytest.mark.parametrize("hook", ["on_connect", "on_bad_message", "on_disconnect"])
def test_so_it_is_for_each_hook(hook: str) -> None:
    async def coroutine(*_: Any) -> None: ...

    handler = type("Hooked", (Upper,), {"handle_message": lambda *_: None, hook: coroutine})
    with pytest.raises(HandlerError, match=f"Hooked.{hook} is 'async def'"):
        everserve.make_server(handler, "tcp://127.0.0.1:0")
    everserve.make_server(handler, "tcp://127.0.0.1:0", concurrency="asyncio").server_close()


def test_a_generator_of_replies_is_no_coroutine() -> None:
    class Several(LineRequestHandler[Any, Any]):
        async def handle_message(self, message: bytes) -> Any:
            yield message

    with pytest.raises(HandlerError, match="has a 'yield'"):
        everserve.make_server(Several, "tcp://127.0.0.1:0", concurrency="asyncio")


def test_a_coroutine_that_a_plain_method_returns_is_an_error_of_its_request() -> None:
    class Sneaky(LineRequestHandler[Any, Any]):
        def handle_message(self, message: bytes) -> Any:
            return Upper.handle_message(self, message)  # type: ignore[arg-type]

    ours, peer = socket.socketpair()
    with ours, peer:
        peer.sendall(b"a\n")
        with pytest.raises(HandlerError, match="nothing awaits it"):
            Sneaky(ours, "peer", None)
        assert make(Sneaky).server_close() is None


def test_messages_wait_for_the_one_before_and_replies_before_it_have_left() -> None:
    class Held(LineRequestHandler[Any, Any]):
        running: ClassVar[set[int]] = set()

        async def handle_message(self, message: bytes) -> bytes:
            self.running.add(1)
            assert len(self.running) == 1
            if message == b"wait":
                await self.server.gate.wait()
            await asyncio.sleep(0)
            self.running.remove(1)
            return message

    async def main() -> None:
        server = make(Held)
        server.gate = asyncio.Event()
        serving = asyncio.create_task(server.serve())
        reader, writer = await asyncio.open_connection(*server.server_address)
        writer.write(b"one\nwait\nlast\n")
        assert await reader.readline() == b"one\n"
        server.gate.set()
        assert await reader.readline() == b"wait\n"
        assert await reader.readline() == b"last\n"
        writer.close()
        server.stop()
        await serving

    asyncio.run(main())


def test_a_push_of_a_coroutine_waits_for_no_room() -> None:
    errors: list[BaseException] = []
    seen = fibers.Event()

    class Filling(LineRequestHandler[Any, Any]):
        outbox = 2

        async def handle_message(self, message: bytes) -> bytes:
            try:
                while True:
                    self.push(b"x" * 1_000_000)
            except HubError as error:
                errors.append(error)
            seen.set()
            return b"end"

    with make(Filling) as server, server.running(), connect(server) as client:
        client.sendall(b"go\n")
        assert seen.wait(LIMIT)
        assert client.makefile("rb").read(1) == b"x"
    assert "await asyncio.to_thread" in str(errors[0])


def test_datagrams() -> None:
    with everserve.AsyncUDPServer(("127.0.0.1", 0), Upper) as server, server.running() as address:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(LIMIT)
            client.connect(address)
            client.send(b"a")
            assert client.recv(100) == b"A\n"
