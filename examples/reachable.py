"""Which addresses accept: `python reachable.py`, `nc 127.0.0.1 9999`, `localhost:22 localhost:80`."""

import asyncio

import everserve


async def knock(place: str) -> str:
    host, _, port = place.rpartition(":")
    try:
        async with asyncio.timeout(2):
            _, writer = await asyncio.open_connection(host, int(port))
    except (OSError, ValueError) as error:
        return f"{place} {type(error).__name__}"
    writer.close()
    return f"{place} open"


class Reachable(everserve.LineRequestHandler):
    """Knocks at all addresses of a line at once; the lines of a client are answered in their order."""

    async def handle_message(self, line: bytes) -> list[bytes]:
        places = line.decode(errors="replace").split()
        return [found.encode() for found in await asyncio.gather(*map(knock, places))]


if __name__ == "__main__":
    everserve.serve(Reachable, "tcp://127.0.0.1:9999", concurrency="asyncio")
