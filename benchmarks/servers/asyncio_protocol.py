"""asyncio with callbacks: a Protocol, written by hand.

``lines`` is the fast way to write such a Protocol: one split of the received bytes, a step of Python
for each line, one join of the replies, one write. ``bulk`` is a shortcut that only an echo can take:
it runs no code for a single line. ``frames`` does as ``lines``, for four bytes of length before each
message. asyncio and uvloop set TCP_NODELAY by default.
"""

import asyncio
from struct import Struct

from command_line import BACKLOG, HOST, announce, parser, tls_context, warm_allocator

pack, unpack_from = Struct(">I").pack, Struct(">I").unpack_from


class Echo(asyncio.Protocol):
    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Lines(Echo):
    unfinished = b""

    def data_received(self, data: bytes) -> None:
        if self.unfinished:
            data = self.unfinished + data
        lines = data.split(b"\n")
        self.unfinished = lines.pop()
        self.transport.write(b"".join([line + b"\n" for line in lines]))


class Frames(Echo):
    unfinished = b""

    def data_received(self, data: bytes) -> None:
        if self.unfinished:
            data = self.unfinished + data
        start, size, replies = 0, len(data), []
        while size - start >= 4:
            (length,) = unpack_from(data, start)
            end = start + 4 + length
            if end > size:
                break
            message = data[start + 4 : end]
            replies += pack(len(message)), message
            start = end
        self.unfinished = data[start:]
        self.transport.write(b"".join(replies))


class Bulk(Echo):
    unfinished = b""

    def data_received(self, data: bytes) -> None:
        if self.unfinished:
            data = self.unfinished + data
        lines = data.split(b"\n")
        self.unfinished = lines[-1]
        lines[-1] = b""
        self.transport.write(b"\n".join(lines))


async def serve() -> None:
    options = parser(modes=("echo", "lines", "bulk", "frames")).parse_args()
    warm_allocator()
    protocol = {"echo": Echo, "lines": Lines, "bulk": Bulk, "frames": Frames}[options.mode]
    loop = asyncio.get_running_loop()
    context = tls_context(options.tls)
    server = await loop.create_server(protocol, HOST, options.port, backlog=BACKLOG, ssl=context)
    announce(server.sockets[0].getsockname()[1])
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve())
