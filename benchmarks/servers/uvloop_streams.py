"""uvloop, with the same coroutines as in ``asyncio_streams.py``."""

import uvloop
from asyncio_streams import serve

if __name__ == "__main__":
    uvloop.run(serve())
