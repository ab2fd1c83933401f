"""everserve: one handler, and an option for the strategy that runs it.

The handlers are ordinary handlers for ``socketserver``; only the public API is used.
"""

import argparse
import os
import time

from command_line import BACKLOG, HOST, READ_BYTES, announce, parser

STREAM_SERVERS = {
    "asyncio": "AsyncTCPServer",
    "fibers": "FiberTCPServer",
    "threads": "ThreadingTCPServer",
    "pool": "ThreadPoolTCPServer",
    "serial": "TCPServer",
}
DATAGRAM_SERVERS = {
    "fibers": "FiberUDPServer",
    "threads": "ThreadingUDPServer",
    "serial": "UDPServer",
}


SESSION_SERVERS = {
    "fibers": "FiberSessionUDPServer",
    "threads": "ThreadingSessionUDPServer",
    "pool": "ThreadPoolSessionUDPServer",
}
SERVERS = {"udp": DATAGRAM_SERVERS, "collect": DATAGRAM_SERVERS, "sessions": SESSION_SERVERS}


def read_options() -> argparse.Namespace:
    options = parser(modes=("echo", "lines", "messages", "frames", "sleep", *SERVERS))
    options.add_argument("--concurrency", choices=STREAM_SERVERS, default="fibers")
    options.add_argument("--engine", choices=("auto", "native", "python"), default="auto")
    options.add_argument("--tickets", type=int, help="session tickets, instead of the default")
    options.add_argument("--subscribe", action="store_true", help="with a subscriber to events")
    options.add_argument("--coalesce", action="store_true", help="gather what a handler writes")
    options.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        type=lambda text: tuple(text.split("=", 1)),
        help="an option of the server",
    )
    return options.parse_args()


OPTIONS = read_options()
os.environ["EVERSERVE_ENGINE"] = OPTIONS.engine  # the import below reads it, once

import everserve  # noqa: E402
from everserve.options import OPTIONS as TABLE  # noqa: E402


class EchoTLS(everserve.BaseRequestHandler):  # with TLS, TCP_NODELAY is on by default
    def handle(self) -> None:
        while data := self.request.recv(READ_BYTES):
            self.request.sendall(data)


class Echo(everserve.StreamRequestHandler):
    disable_nagle_algorithm = True
    handle = EchoTLS.handle


class Lines(everserve.StreamRequestHandler):
    disable_nagle_algorithm = True

    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line)


class Messages(everserve.LineRequestHandler):
    def handle_message(self, line: bytes) -> bytes:
        return line


class Frames(everserve.FrameRequestHandler):
    def handle_message(self, message: bytes) -> bytes:
        return message


class Sleep(everserve.LineRequestHandler):
    """As a library that blocks its thread: a database, say."""

    def handle_message(self, line: bytes) -> bytes:
        time.sleep(0.01)
        return line


class AsyncEcho(everserve.AsyncStreamRequestHandler):
    disable_nagle_algorithm = True

    async def handle(self) -> None:
        while data := await self.rfile.read1():
            self.wfile.write(data)
            await self.wfile.drain()


class AsyncLines(everserve.AsyncStreamRequestHandler):
    disable_nagle_algorithm = True

    async def handle(self) -> None:
        async for line in self.rfile:
            self.wfile.write(line)
            await self.wfile.drain()


class Datagrams(everserve.BaseRequestHandler):
    def handle(self) -> None:
        data, sock = self.request
        sock.sendto(data, self.client_address)


COUNTS = {"all": 0}


class Collect(everserve.BaseRequestHandler):
    def handle(self) -> None:
        COUNTS["all"] += 1
        data, sock = self.request
        if data[0] == 63:  # a question
            sock.sendto(b"%d" % COUNTS["all"], self.client_address)


class Sessions(everserve.DatagramSessionHandler):
    def handle(self) -> None:
        for datagram in self.datagrams:
            self.send(datagram)


def server_class() -> type[everserve.BaseServer]:
    """The chosen ready-made class, with the options of this benchmark."""
    names = SERVERS.get(OPTIONS.mode, STREAM_SERVERS)
    knobs: dict[str, object] = {"request_queue_size": BACKLOG, "allow_reuse_address": True}
    if OPTIONS.concurrency == "threads":
        knobs["daemon_threads"] = True
    if OPTIONS.coalesce:
        knobs["coalesce_writes"] = True
    if OPTIONS.tls:
        tickets = {} if OPTIONS.tickets is None else {"session_tickets": OPTIONS.tickets}
        knobs["tls"] = everserve.TLS(OPTIONS.tls, minimum="1.3", **tickets)
    base = getattr(everserve, names[OPTIONS.concurrency])
    chosen = {name: TABLE[name].check(value) for name, value in OPTIONS.set}
    return type("Server", (base,), knobs | chosen)


def main() -> None:
    echo = EchoTLS if OPTIONS.tls else Echo
    handlers = {
        "echo": echo,
        "lines": Lines,
        "messages": Messages,
        "frames": Frames,
        "sleep": Sleep,
        "udp": Datagrams,
        "collect": Collect,
        "sessions": Sessions,
    }
    if OPTIONS.concurrency == "asyncio":
        handlers |= {"echo": AsyncEcho, "lines": AsyncLines}
    handler = handlers[OPTIONS.mode]
    if OPTIONS.coalesce:
        handler.coalesce_writes = True
    with server_class()((HOST, OPTIONS.port), handler) as server:
        if OPTIONS.subscribe:
            server.subscribe(lambda event: None)
        announce(server.server_address[1])
        server.serve_forever()


if __name__ == "__main__":
    main()
