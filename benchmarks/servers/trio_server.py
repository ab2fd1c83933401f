"""trio: a task for each connection. trio sets TCP_NODELAY itself and has no line reader."""

import trio
from command_line import BACKLOG, HOST, READ_BYTES, announce, parser


async def echo(stream: trio.SocketStream) -> None:
    try:
        while data := await stream.receive_some(READ_BYTES):
            await stream.send_all(data)
    except trio.BrokenResourceError:
        pass


async def lines(stream: trio.SocketStream) -> None:
    unfinished = b""
    async for data in stream:
        *whole, unfinished = (unfinished + data).split(b"\n")
        for line in whole:
            await stream.send_all(line + b"\n")


async def main() -> None:
    options = parser().parse_args()
    handler = {"echo": echo, "lines": lines}[options.mode]
    listeners = await trio.open_tcp_listeners(options.port, host=HOST, backlog=BACKLOG)
    announce(listeners[0].socket.getsockname()[1])
    await trio.serve_listeners(handler, listeners)


if __name__ == "__main__":
    trio.run(main)
