"""``sockets.genuine``: programs that replace ``socket.socket`` before they import everserve."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys

import pytest

from everserve.sockets.genuine import RealSocket, is_patched

PATCHES = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "eventlet": "import eventlet; eventlet.monkey_patch()",
    "fake": """
import socket

class Green:
    real = socket.socket

    def __init__(self, *arguments, sock=None, **keywords):
        self._sock = sock or self.real(*arguments, **keywords)

    def accept(self):
        sock, address = self._sock.accept()
        return Green(sock=sock), address

    def recvmsg(self, size, room=0, flags=0):
        if flags and self._sock.gettimeout() != 0:
            raise AssertionError("that of gevent waits, whatever the flags say")
        return self._sock.recvmsg(size, room, flags)

    def makefile(self, *arguments):
        return self._sock.makefile(*arguments)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def __getattr__(self, name):
        return getattr(self._sock, name)

socket.socket = Green
""",
}

WORDS = ("serial", "threads", "pool")

PROGRAM = """
import socket
import everserve

class Upper(everserve.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line.upper())

class Shout(everserve.DatagramRequestHandler):
    def handle(self):
        self.wfile.write(self.packet.upper())

for word in ("serial", "threads", "pool"):
    with everserve.make_server(Upper, "tcp://127.0.0.1:0", concurrency=word).running() as address:
        with socket.create_connection(address, timeout=20) as client:
            client.sendall(b"hello\\n")
            print(word, client.recv(100).decode().strip())
    server = everserve.make_server(Upper, "tcp://127.0.0.1:0", concurrency=word, idle_timeout=0.1)
    with server.running() as address:
        with socket.create_connection(address, timeout=20) as client:
            print(word, "was idle", client.recv(100))
    with everserve.make_server(Shout, "udp://127.0.0.1:0", concurrency=word).running() as address:
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        client.settimeout(20)
        client.sendto(b"hello", address)
        print(word, client.recv(100).decode())
        client.close()
"""


def test_the_real_class_is_that_of_the_standard_library() -> None:
    assert RealSocket is socket.socket
    assert not is_patched()


@pytest.mark.parametrize("patch", PATCHES)
def test_it_serves_after_socket_was_patched(patch: str) -> None:
    if patch != "fake" and importlib.util.find_spec(patch) is None:
        pytest.skip(f"{patch} is not installed")
    answer = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PATCHES[patch] + PROGRAM],
        stdout=subprocess.PIPE,
        timeout=50,
        text=True,
        check=True,
    )
    seen = "".join(f"{word} HELLO\n{word} was idle b''\n{word} HELLO\n" for word in WORDS)
    assert answer.stdout == seen
