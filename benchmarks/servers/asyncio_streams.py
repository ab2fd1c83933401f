"""asyncio with streams: a coroutine for each connection."""

import asyncio

from command_line import BACKLOG, HOST, READ_BYTES, announce, parser, warm_allocator


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(READ_BYTES):
            writer.write(data)
            await writer.drain()
    except ConnectionResetError:
        pass
    finally:
        writer.close()


async def lines(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        async for line in reader:
            writer.write(line)
            await writer.drain()
    except ConnectionResetError:
        pass
    finally:
        writer.close()


async def frames(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            header = await reader.readexactly(4)
            message = await reader.readexactly(int.from_bytes(header))
            writer.write(len(message).to_bytes(4) + message)
            await writer.drain()
    except (ConnectionResetError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


async def serve() -> None:
    options = parser(modes=("echo", "lines", "frames")).parse_args()
    warm_allocator()
    handler = {"echo": echo, "lines": lines, "frames": frames}[options.mode]
    server = await asyncio.start_server(handler, HOST, options.port, backlog=BACKLOG)
    announce(server.sockets[0].getsockname()[1])
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve())
