"""Send lines to the upper-casing TCP server: `python upper_tcp_client.py [--port 9999] hello world`."""

import argparse
import socket

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--host", default="127.0.0.1")
parser.add_argument("--port", type=int, default=9999)
parser.add_argument("lines", nargs="*", default=["hello"])
options = parser.parse_args()

try:
    connection = socket.create_connection((options.host, options.port))
except OSError as error:
    raise SystemExit(f"no server at {options.host}:{options.port}: {error}") from None

with connection, connection.makefile("rw") as stream:
    for line in options.lines:
        print(line, file=stream, flush=True)
        print(stream.readline(), end="")
