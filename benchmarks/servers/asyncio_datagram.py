"""asyncio with callbacks, for datagrams."""

import asyncio

from command_line import HOST, announce, parser, warm_allocator


class Echo(asyncio.DatagramProtocol):
    transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.transport.sendto(data, addr)


class Collect(Echo):
    count = 0

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.count += 1
        if data[0] == 63:  # a question
            self.transport.sendto(b"%d" % self.count, addr)


async def serve() -> None:
    options = parser(modes=("udp", "collect")).parse_args()
    protocol = Collect if options.mode == "collect" else Echo
    warm_allocator()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(protocol, (HOST, options.port))
    announce(transport.get_extra_info("socket").getsockname()[1])
    await loop.create_future()  # until the process is ended


if __name__ == "__main__":
    asyncio.run(serve())
