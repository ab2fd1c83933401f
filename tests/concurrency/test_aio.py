"""Requests as tasks of asyncio: what differs from fibers. The contract suite has the rest."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from typing import Any

import pytest
from tests.clients import LIMIT, Background
from tests.scenes import EventRecorder

import everserve
from everserve import fibers
from everserve.errors import HandlerError, HubError, LineTooLong
from everserve.events import DeadlineMissed, Failed

Handle = Callable[[Any], Any]


def make(handle: Handle, **attributes: Any) -> Any:
    handler = type("Handler", (everserve.AsyncStreamRequestHandler,), {"handle": handle})
    kind = type("Server", (everserve.AsyncTCPServer,), attributes)
    return kind(("127.0.0.1", 0), handler)


def connect(server: Any) -> socket.socket:
    return socket.create_connection(server.server_address, LIMIT)


async def echo(handler: Any) -> None:
    async for line in handler.rfile:
        handler.wfile.write(line)
        await handler.wfile.drain()


def ask(server: Any, data: bytes) -> bytes:
    with connect(server) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        return client.makefile("rb").read()


# -- the loop ------------------------------------------------------------------------------------


def test_it_serves_on_a_loop_that_runs() -> None:
    async def main() -> None:
        server = make(echo)
        serving = asyncio.create_task(server.serve())
        assert await asyncio.to_thread(ask, server, b"one\n") == b"one\n"
        partial = server.stop()
        assert not partial.complete
        report = await serving
        assert report.complete
        assert asyncio.get_running_loop().is_running()

    asyncio.run(main())


def test_two_servers_on_one_loop() -> None:
    async def main() -> None:
        servers = [make(echo), make(echo)]
        serving = [asyncio.create_task(server.serve()) for server in servers]
        for server in servers:
            assert await asyncio.to_thread(ask, server, b"one\n") == b"one\n"
        for server in servers:
            server.stop()
        await asyncio.gather(*serving)

    asyncio.run(main())


def test_a_shutdown_ends_serve_without_a_report() -> None:
    async def main() -> None:
        with make(echo) as server:
            serving = asyncio.create_task(server.serve())
            await asyncio.to_thread(ask, server, b"one\n")
            server.shutdown()
            assert await serving is None

    asyncio.run(main())


def test_serve_can_be_cancelled() -> None:
    async def main() -> None:
        began, cancelled = asyncio.Event(), asyncio.Event()

        async def handle(handler: Any) -> None:
            began.set()
            try:
                await asyncio.sleep(3600)
            finally:
                cancelled.set()

        with make(handle, shutdown_grace=0.0) as server:
            serving = asyncio.create_task(server.serve())
            _, writer = await asyncio.open_connection(*server.server_address)
            await began.wait()
            serving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await serving
            assert cancelled.is_set()
            writer.close()

    asyncio.run(main())


def test_serve_forever_would_block_a_loop_that_runs() -> None:
    async def main() -> None:
        with make(echo) as server, pytest.raises(HubError, match=r"await server\.serve\(\)"):
            server.serve_forever()

    asyncio.run(main())


def test_the_loop_is_that_of_the_option() -> None:
    made: list[asyncio.AbstractEventLoop] = []

    def new_loop() -> asyncio.AbstractEventLoop:
        made.append(asyncio.SelectorEventLoop())
        return made[-1]

    server: Any = everserve.make_server(
        type("Handler", (everserve.AsyncStreamRequestHandler,), {"handle": echo}),
        "tcp://127.0.0.1:0",
        concurrency="asyncio",
        loop_factory=new_loop,
    )
    with server.running():
        assert ask(server, b"one\n") == b"one\n"
    assert [loop.is_closed() for loop in made] == [True]


def test_shutdown_returns_when_the_run_is_over() -> None:
    steps: list[str] = []
    called, returned = threading.Event(), threading.Event()

    class Loop(asyncio.SelectorEventLoop):
        def close(self) -> None:
            returned.wait(0.05)  # it must not be so early
            steps.append("closed")
            super().close()

    def new_loop() -> asyncio.AbstractEventLoop:
        assert called.wait(LIMIT)
        returned.wait(0.05)
        steps.append("made")
        return Loop()

    with make(echo, loop_factory=everserve.LoopFactory(new_loop)) as server:
        serving = Background(server.serve_forever)
        waiting = Background(lambda: (called.set(), server.shutdown(), returned.set()))
        waiting.result()
        steps.append("returned")
        serving.result()
    assert steps == ["made", "closed", "returned"]


def test_a_generator_that_will_not_end_keeps_no_loop_open() -> None:
    async def stubborn() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await asyncio.Event().wait()

    generators = []

    async def handle(handler: Any) -> None:
        generators.append(stubborn())
        await anext(generators[-1])
        handler.wfile.write(b"done")

    server = make(handle)
    with server.running():
        assert ask(server, b"") == b"done"
    assert server.state is everserve.ServerState.STOPPED


def test_a_group_with_fibers() -> None:
    class Plain(everserve.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(self.rfile.readline())

    other = everserve.FiberTCPServer(("127.0.0.1", 0), Plain)
    server = make(echo)
    with everserve.ServerGroup([other, server]).running():
        assert ask(other, b"one\n") == b"one\n"
        assert ask(server, b"two\n") == b"two\n"


# -- a request -----------------------------------------------------------------------------------


def test_an_error_of_the_handler_is_reported() -> None:
    async def handle(handler: Any) -> None:
        raise ValueError("must fail")

    recorder = EventRecorder()
    server = make(handle)
    server.subscribe(recorder)
    with server.running():
        assert ask(server, b"") == b""
        recorder.wait_for(Failed)


@pytest.mark.parametrize("error", [SystemExit(3), asyncio.CancelledError()])
def test_it_may_end_its_own_task(error: BaseException) -> None:
    async def handle(handler: Any) -> None:
        if await handler.rfile.readline() == b"end\n":
            raise error
        handler.wfile.write(b"alive\n")

    server = make(handle)
    with server.running():
        assert ask(server, b"end\n") == b""
        assert ask(server, b"go\n") == b"alive\n"


def test_hooks_may_be_coroutines() -> None:
    class Handler(everserve.AsyncStreamRequestHandler[Any, Any]):
        async def setup(self) -> None:
            super().setup()
            await asyncio.sleep(0)
            self.wfile.write(b"setup ")

        async def handle(self) -> None:
            self.wfile.write(b"handle ")

        async def finish(self) -> None:
            await asyncio.sleep(0)
            self.wfile.write(b"finish")
            super().finish()

    server = everserve.AsyncTCPServer(("127.0.0.1", 0), Handler)
    with server.running():
        assert ask(server, b"") == b"setup handle finish"


def test_a_deadline_cuts_it() -> None:
    recorder = EventRecorder()
    server = make(echo, idle_timeout=0.05)
    server.subscribe(recorder)
    with server.running(), connect(server) as client:
        assert client.recv(1) == b""
        recorder.wait_for(DeadlineMissed)


def test_a_coroutine_of_another_server_is_an_error(recwarn: Any) -> None:
    class Handler(everserve.BaseRequestHandler[Any, Any]):
        async def handle(self) -> None:  # pragma: no cover
            pass

    one, other = socket.socketpair()
    with one, other, pytest.raises(HandlerError, match="'async def'"):
        Handler(one, "peer", object())


# -- the files -----------------------------------------------------------------------------------


def test_a_cancelled_read_loses_nothing() -> None:
    async def handle(handler: Any) -> None:
        try:
            async with asyncio.timeout(0.01):
                await handler.rfile.readline()
        except TimeoutError:
            handler.wfile.write(b"late\n")
        handler.wfile.write(await handler.rfile.readline())

    server = make(handle)
    with server.running(), connect(server) as client:
        client.sendall(b"hel")
        file = client.makefile("rb")
        assert file.readline() == b"late\n"
        client.sendall(b"lo\n")
        assert file.readline() == b"hello\n"


def test_the_reads() -> None:
    async def handle(handler: Any) -> None:
        found = [
            await handler.rfile.read(2),
            await handler.rfile.readexactly(3),
            await handler.rfile.read1(1),
            await handler.rfile.readline(),
        ]
        with pytest.raises(asyncio.IncompleteReadError):
            await handler.rfile.readexactly(4)
        handler.wfile.writelines([b"|".join(found), b"|", await handler.rfile.read()])
        await handler.wfile.flush()

    server = make(handle)
    with server.running():
        assert ask(server, b"aabbbcdd\nee") == b"aa|bbb|c|dd\n|"


def test_one_task_reads_at_a_time() -> None:
    async def handle(handler: Any) -> None:
        first = asyncio.create_task(handler.rfile.readline())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="another task"):
            await handler.rfile.readline()
        handler.wfile.write(b"go\n")
        handler.wfile.write(await first)

    server = make(handle)
    with server.running(), connect(server) as client:
        file = client.makefile("rb")
        assert file.readline() == b"go\n"
        client.sendall(b"one\n")
        assert file.readline() == b"one\n"


def test_a_long_line_is_refused() -> None:
    errors: list[BaseException] = []

    async def handle(handler: Any) -> None:
        try:
            await handler.rfile.readline()
        except LineTooLong as error:
            errors.append(error)

    server = make(handle, max_line=8)
    with server.running():
        assert ask(server, b"123456789\n") == b""
    assert len(errors) == 1


def test_drain_waits_for_a_peer_that_does_not_read() -> None:
    drained: list[int] = []
    held = fibers.Event()

    async def handle(handler: Any) -> None:
        for _ in range(64):
            handler.wfile.write(b"x" * 65536)
        held.set()
        await handler.wfile.drain()
        drained.append(handler.wfile.buffered)

    server = make(handle)
    with server.running(), connect(server) as client:
        assert held.wait(LIMIT)
        assert not drained
        assert len(client.makefile("rb").read()) == 64 * 65536
    assert drained == [0]


def test_a_write_leaves_although_the_task_waits_elsewhere() -> None:
    async def handle(handler: Any) -> None:
        handler.wfile.write(b"now\n")
        await asyncio.sleep(3600)

    server = make(handle)
    background = Background(server.serve_forever)
    with connect(server) as client:
        assert client.recv(100) == b"now\n"
    server.stop(0)
    background.result()


# -- the task ------------------------------------------------------------------------------------


def test_the_task_of_a_handler_is_one_of_asyncio() -> None:
    found: list[Any] = []

    async def handle(handler: Any) -> None:
        task = asyncio.current_task()
        await handler.rfile.readline()
        await asyncio.sleep(0)
        found.extend((task, asyncio.current_task(), task in asyncio.all_tasks(), task.get_name()))
        async with asyncio.TaskGroup() as group:
            inner = group.create_task(asyncio.sleep(0, "inner"))
        handler.wfile.write(inner.result().encode())

    server = make(handle)
    with server.running():
        assert ask(server, b"a\n") == b"inner"
    task, again, is_listed, name = found
    assert isinstance(task, asyncio.Task)
    assert again is task
    assert is_listed
    assert name.endswith("handle")
    assert task.done()
    assert not task.cancelled()


@pytest.mark.parametrize("waits_for", ["a line", "a future", "another task", "nothing"])
def test_a_timeout_cancels_whatever_the_task_waits_for(waits_for: str) -> None:
    async def handle(handler: Any) -> None:
        task = asyncio.current_task()
        try:
            async with asyncio.timeout(None) as timeout:
                timeout.reschedule(asyncio.get_running_loop().time())
                if waits_for == "a line":
                    await handler.rfile.readline()
                elif waits_for == "a future":
                    await asyncio.get_running_loop().create_future()
                elif waits_for == "another task":
                    await asyncio.create_task(asyncio.sleep(3600))
                else:
                    while True:
                        await asyncio.sleep(0)
        except TimeoutError:
            handler.wfile.write(b"timeout %d\n" % task.cancelling())
        handler.wfile.write(await handler.rfile.readline())

    server = make(handle)
    with server.running(), connect(server) as client:
        file = client.makefile("rb")
        assert file.readline() == b"timeout 0\n"
        client.sendall(b"more\n")
        assert file.readline() == b"more\n"


def test_a_task_that_cancels_itself_ends_at_its_next_wait() -> None:
    found: list[Any] = []

    async def handle(handler: Any) -> None:
        found.append(asyncio.current_task())
        found[0].cancel()
        found.append("goes on")
        await handler.rfile.readline()
        found.append("never")

    server = make(handle)
    with server.running(), connect(server) as client:
        assert client.recv(100) == b""
    assert found[1:] == ["goes on"]
    assert found[0].cancelled()


def test_what_no_loop_knows_is_refused() -> None:
    class Strange:
        def __await__(self) -> Any:
            yield "strange"

    async def handle(handler: Any) -> None:
        with pytest.raises(RuntimeError, match="cannot wait for 'strange'"):
            await Strange()
        loop = asyncio.new_event_loop()
        with pytest.raises(RuntimeError, match="cannot wait for"):
            await loop.create_future()
        loop.close()
        handler.wfile.write(b"refused")

    server = make(handle)
    with server.running():
        assert ask(server, b"") == b"refused"


def test_a_task_of_the_handler_reads_and_writes_for_it() -> None:
    async def handle(handler: Any) -> None:
        async def pump() -> None:
            async for line in handler.rfile:
                handler.wfile.write(line)

        reading = asyncio.create_task(handler.rfile.readline())
        await asyncio.sleep(0)
        reading.cancel()
        handler.wfile.write(b"cancelled\n")
        await asyncio.create_task(pump())

    server = make(handle)
    with server.running(), connect(server) as client:
        file = client.makefile("rb")
        assert file.readline() == b"cancelled\n"
        client.sendall(b"one\ntwo\n")
        assert [file.readline(), file.readline()] == [b"one\n", b"two\n"]
        client.shutdown(socket.SHUT_WR)
        assert file.read() == b""


def test_a_context_is_that_of_the_connection() -> None:
    variable: ContextVar[int] = ContextVar("variable", default=0)

    async def handle(handler: Any) -> None:
        async for line in handler.rfile:
            before = variable.get()
            variable.set(int(line))
            await asyncio.sleep(0)
            handler.wfile.write(b"%d %d\n" % (before, variable.get()))

    server = make(handle)
    with server.running():
        for _ in range(2):
            assert ask(server, b"1\n2\n") == b"0 1\n1 2\n"
