"""The standard library's threading example, on everserve: `python threads.py`."""

import socket
import threading

import everserve as socketserver


class ThreadedTCPRequestHandler(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        data = str(self.request.recv(1024), "ascii")
        self.request.sendall(f"{threading.current_thread().name}: {data}".encode("ascii"))


class ThreadedTCPServer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    pass


def client(address: tuple[str, int], message: str) -> None:
    with socket.create_connection(address) as sock:
        sock.sendall(message.encode("ascii"))
        print("Received:", str(sock.recv(1024), "ascii"))


if __name__ == "__main__":
    with ThreadedTCPServer(("localhost", 0), ThreadedTCPRequestHandler).running() as address:
        client(address, "Hello World 1")
        client(address, "Hello World 2")
        client(address, "Hello World 3")
