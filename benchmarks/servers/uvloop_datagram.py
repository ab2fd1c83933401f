"""uvloop, with the same datagram protocol as in ``asyncio_datagram.py``."""

import uvloop
from asyncio_datagram import serve

if __name__ == "__main__":
    uvloop.run(serve())
