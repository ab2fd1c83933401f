"""What a user writes, and what a type checker is to say to it: `# expect: error`, or the type revealed.

It is read by type checkers alone, never run.
"""

from __future__ import annotations

import http.server
import socket
import ssl
from typing import Any, reveal_type

import everserve
from everserve import events


class Counting(everserve.ThreadingTCPServer):
    """A server with an attribute of its own, and some options."""

    allow_reuse_address = True
    request_queue_size = 5
    max_connections = 100
    idle_timeout = 2.5
    overload = "refuse"
    requests = 0


class Lines(everserve.StreamRequestHandler[socket.socket, Counting]):
    """A handler that says what its request and its server are."""

    max_line = 1000
    timeout = 5.0

    def handle(self) -> None:
        reveal_type(self.server)  # expect: Counting
        reveal_type(self.request)  # expect: socket
        self.server.requests += 1
        self.server.reqests += 1  # expect: error
        for line in self.rfile:
            reveal_type(line)  # expect: bytes
        reveal_type(self.rfile.readline())  # expect: bytes
        reveal_type(self.rfile.read(10))  # expect: bytes
        reveal_type(self.wfile.write(b"x"))  # expect: int
        self.wfile.write("text")  # expect: error
        self.wfile.wriet(b"x")  # expect: error
        reveal_type(self.start_tls())  # expect: None

    def finish(self) -> None:
        reveal_type(self.peer)  # expect: Peer
        reveal_type(self.deadline)  # expect: float | None
        reveal_type(self.cancelled)  # expect: CancelReason | None
        reveal_type(self.truncated)  # expect: bool
        super().finish()


class Plain(everserve.BaseRequestHandler):
    """A handler as of old: whatever its server has is there."""

    def handle(self) -> None:
        self.request.sendall(self.server.greeting)


class Packets(everserve.DatagramRequestHandler[Any, everserve.UDPServer]):
    """A handler of datagrams."""

    def handle(self) -> None:
        reveal_type(self.packet)  # expect: bytes
        reveal_type(self.rfile.readline())  # expect: bytes
        reveal_type(self.wfile.write(b"x"))  # expect: int
        reveal_type(self.server)  # expect: UDPServer


class Web(everserve.FiberMixIn, http.server.HTTPServer):
    """A mix-in on a server of the standard library."""


class Wrong(everserve.TCPServer):
    """Options of the wrong type."""

    max_connections = "100"  # expect: error
    idle_timeout = "never"  # expect: error
    allow_reuse_address = "yes"  # expect: error


def observe(event: events.Event) -> None: ...


def use_a_server() -> None:
    with Counting(("127.0.0.1", 0), Lines) as server:
        reveal_type(server)  # expect: Counting
        reveal_type(server.state)  # expect: ServerState
        reveal_type(server.draining)  # expect: bool
        reveal_type(server.connections)  # expect: Connections
        for connection in server.connections:
            reveal_type(connection)  # expect: Connection
        reveal_type(server.suspend())  # expect: None
        reveal_type(server.resume())  # expect: None
        server.subscribe(observe)
        server.subscribe(3)  # expect: error
        with server.running(grace=1.0):
            reveal_type(server.server_address[1])  # expect: Any
        reveal_type(server.stop(1.0))  # expect: StopReport
        reveal_type(server.stop(0).unfinished)  # expect: tuple[Connection, ...]
        server.stop("soon")  # expect: error


def use_the_short_way(context: ssl.SSLContext) -> None:
    reveal_type(everserve.serve(Lines, "tcp://127.0.0.1:0"))  # expect: StopReport
    everserve.serve(
        Lines,
        "tls://127.0.0.1:0",
        "unix:/run/lines",
        concurrency="pool",
        grace=2.0,
        max_workers=4,
        max_connections=10,
        overload="wait",
        access="allow 10.0.0.0/8",
        idle_timeout=5,
        tls=context,
    )
    everserve.serve({"tcp://127.0.0.1:0": Lines, "udp://127.0.0.1:0": Packets})
    everserve.serve(Lines, "tcp://127.0.0.1:0", concurency="pool")  # expect: error
    everserve.serve(Lines, "tcp://127.0.0.1:0", concurrency="thread")  # expect: error
    everserve.serve(Lines, "tcp://127.0.0.1:0", max_conections=10)  # expect: error
    everserve.serve(Lines, "tcp://127.0.0.1:0", max_connections="10")  # expect: error
    everserve.serve(Lines, "tcp://127.0.0.1:0", overload="dorp")  # expect: error
    everserve.serve(Lines, "tcp://127.0.0.1:0", tls=True)  # expect: error
    everserve.serve(Lines, "tcp://127.0.0.1:0", dual_stack="yes")  # expect: error
    everserve.serve(Lines, 9999)  # expect: error


def use_a_made_server() -> None:
    server = everserve.make_server(
        Lines, "tcp://127.0.0.1:0", concurrency="serial", max_connections=1
    )
    reveal_type(server)  # expect: TCPServer
    everserve.make_server(Lines, "tcp://127.0.0.1:0", concurency="serial")  # expect: error
    everserve.make_server(Lines, "tcp://127.0.0.1:0", max_conections=1)  # expect: error
    everserve.make_server(Lines, "tcp://127.0.0.1:0", idle_timeout="5")  # expect: error


def use_certificates() -> None:
    reveal_type(everserve.TLS("cert.pem", "key.pem"))  # expect: TLS
