"""Send a datagram to the upper-casing UDP server: `python upper_udp_client.py [--port 9999] hello`."""

import argparse
import socket

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--host", default="127.0.0.1")
parser.add_argument("--port", type=int, default=9999)
parser.add_argument("text", nargs="?", default="hello")
options = parser.parse_args()

with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.settimeout(5)
    sock.connect((options.host, options.port))
    try:
        sock.send(options.text.encode())
        print(sock.recv(65535).decode())
    except OSError as error:
        raise SystemExit(f"no answer from {options.host}:{options.port}: {error}") from None
