"""uvloop, with the same Protocol as in ``asyncio_protocol.py``."""

import uvloop
from asyncio_protocol import serve

if __name__ == "__main__":
    uvloop.run(serve())
