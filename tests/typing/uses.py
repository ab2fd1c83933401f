"""Uses of everserve, with the result expected of a type checker: `# expect: error`, or the type.

It is read by type checkers alone, never run.
"""

from __future__ import annotations

import csv
import http.client
import http.server
import json
import pickle
import shutil
import socket
import socketserver
import ssl
import threading
import wsgiref.simple_server
import xmlrpc.server
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar, reveal_type

import everserve
from everserve import events, fibers

T = TypeVar("T")


class Counting(everserve.ThreadingTCPServer):
    """A server with its own attribute, and some options."""

    allow_reuse_address = True
    request_queue_size = 5
    max_connections = 100
    idle_timeout = 2.5
    overload = "refuse"
    requests = 0


class Lines(everserve.StreamRequestHandler[socket.socket, Counting]):
    """A handler with the types of its request and its server."""

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


class Squares(everserve.LineRequestHandler):
    """A handler of messages that may be handled in another process, and twice."""

    idempotent = True

    @staticmethod
    def handle_message(message: bytes) -> bytes:
        return message


class Computing(everserve.FiberTCPServer):
    """A server with an executor."""

    executor = "processes:4"


class Plain(everserve.BaseRequestHandler):
    """A handler without types: all attributes of its server are accepted."""

    def handle(self) -> None:
        reveal_type(self.request)  # expect: Any
        reveal_type(self.client_address)  # expect: Any
        reveal_type(self.server)  # expect: Any
        self.request.sendall(self.server.greeting)


class Annotated(everserve.StreamRequestHandler):
    """A handler that annotates its request and its server itself."""

    request: socket.socket
    server: Counting
    rbufsize = 0
    wbufsize = -1
    disable_nagle_algorithm = True

    def handle(self) -> None:
        reveal_type(self.request)  # expect: socket
        reveal_type(self.server)  # expect: Counting
        reveal_type(self.connection)  # expect: Any


class Generic1(Generic[T], everserve.StreamRequestHandler[Any, Any]):
    """A handler that is generic in its own type variable."""

    parsed: T


class Generic2(everserve.StreamRequestHandler, Generic[T]):
    """The same, with the bases in the other order."""

    parsed: T


class Numbers(Generic2[int]):
    """A handler that sets the type that the other leaves open."""

    def handle(self) -> None:
        reveal_type(self.parsed)  # expect: int


class Library(everserve.StreamRequestHandler):
    """A handler that gives its files to the standard library."""

    def handle(self) -> None:
        reveal_type(self.rfile)  # expect: BufferedIOBase
        reveal_type(self.wfile)  # expect: BufferedIOBase
        http.client.parse_headers(self.rfile)
        json.load(self.rfile)
        pickle.load(self.rfile)
        csv.reader(line.decode() for line in self.rfile)
        shutil.copyfileobj(self.rfile, self.wfile)

    def finish(self) -> None:
        reveal_type(self.peer.address)  # expect: Any
        reveal_type(self.peer.transport)  # expect: str
        reveal_type(self.peer.tls)  # expect: TLSIdentity | None
        reveal_type(self.peer.proxy)  # expect: ProxyHeader | None
        if self.peer.credentials is not None:
            reveal_type(self.peer.credentials.uid)  # expect: int
        self.peer.transport = "udp"  # expect: error
        super().finish()


class Packets(everserve.DatagramRequestHandler[Any, everserve.UDPServer]):
    """A handler of datagrams."""

    def handle(self) -> None:
        reveal_type(self.packet)  # expect: bytes
        reveal_type(self.rfile.readline())  # expect: bytes
        reveal_type(self.wfile.write(b"x"))  # expect: int
        reveal_type(self.server)  # expect: UDPServer
        self.wfile.write("text")  # expect: error


class Hooked(everserve.ThreadingTCPServer):
    """Each hook, overridden with the signature that it has in the standard library."""

    def server_bind(self) -> None:
        super().server_bind()

    def server_activate(self) -> None:
        super().server_activate()

    def get_request(self) -> tuple[socket.socket, Any]:
        return super().get_request()

    def verify_request(
        self, request: socket.socket | tuple[bytes, socket.socket], client_address: Any
    ) -> bool:
        return super().verify_request(request, client_address)

    def process_request(
        self, request: socket.socket | tuple[bytes, socket.socket], client_address: Any
    ) -> None:
        super().process_request(request, client_address)

    def process_request_thread(
        self, request: socket.socket | tuple[bytes, socket.socket], client_address: Any
    ) -> None:
        super().process_request_thread(request, client_address)

    def finish_request(
        self, request: socket.socket | tuple[bytes, socket.socket], client_address: Any
    ) -> None:
        self.RequestHandlerClass(request, client_address, self)

    def handle_error(
        self, request: socket.socket | tuple[bytes, socket.socket], client_address: Any
    ) -> None:
        super().handle_error(request, client_address)

    def shutdown_request(self, request: socket.socket | tuple[bytes, socket.socket]) -> None:
        super().shutdown_request(request)

    def close_request(self, request: socket.socket | tuple[bytes, socket.socket]) -> None:
        super().close_request(request)

    def service_actions(self) -> None:
        super().service_actions()

    def handle_timeout(self) -> None:
        super().handle_timeout()

    def handle_request(self) -> None:
        super().handle_request()

    def serve_forever(self, poll_interval: float = 0.5) -> None:
        super().serve_forever(poll_interval)

    def shutdown(self) -> None:
        super().shutdown()

    def server_close(self) -> None:
        super().server_close()


class Narrow(everserve.ForkingTCPServer):
    """Hooks for requests that are connections."""

    max_children = 5

    def process_request(self, request: socket.socket, client_address: tuple[str, int]) -> None:
        request.settimeout(5)
        super().process_request(request, client_address)

    def handle_timeout(self) -> None:
        self.collect_children(blocking=False)
        reveal_type(self.active_children)  # expect: set[int] | None


class NotAHook(everserve.TCPServer):
    """Hooks with other types of arguments or results."""

    def verify_request(self, request: Any) -> bool:  # expect: error
        return True

    def get_request(self) -> socket.socket:  # expect: error
        return self.socket


class Web(everserve.FiberMixIn, http.server.HTTPServer):
    """A mix-in on a server of the standard library."""

    stall_threshold = None


class ThreadingWeb(everserve.ThreadingMixIn, http.server.HTTPServer):
    """Each mix-in, with one of its options."""

    daemon_threads = True


class PoolWeb(everserve.ThreadPoolMixIn, http.server.HTTPServer):
    max_workers = 4


class ForkingWeb(everserve.ForkingMixIn, http.server.HTTPServer):
    max_children = 4


class FiberWSGI(everserve.FiberMixIn, wsgiref.simple_server.WSGIServer): ...


class FiberRPC(everserve.FiberMixIn, xmlrpc.server.SimpleXMLRPCServer): ...


class FiberDatagrams(everserve.FiberMixIn, socketserver.UDPServer): ...


class FiberUnix(everserve.FiberMixIn, socketserver.UnixStreamServer): ...


class OwnMix(everserve.ThreadingMixIn, everserve.TCPServer):
    """The mix-ins on everserve's servers, as in socketserver."""


class Threaded(everserve.TCPServer, threading.Thread):
    """A server that is also a thread."""


class Wrong(everserve.TCPServer):
    """Options of the wrong type."""

    max_connections = "100"  # expect: error
    idle_timeout = "never"  # expect: error
    allow_reuse_address = "yes"  # expect: error


def observe(event: events.ServerEvent) -> None: ...


def use_a_server() -> None:
    with Counting(("127.0.0.1", 0), Lines) as server:
        reveal_type(server)  # expect: Counting
        reveal_type(server.state)  # expect: ServerState
        reveal_type(server.draining)  # expect: bool
        reveal_type(server.connections)  # expect: Connections[Connection]
        for connection in server.connections:
            reveal_type(connection)  # expect: Connection
            reveal_type(connection.peer)  # expect: Any
            reveal_type(connection.state)  # expect: ConnectionState
            reveal_type(connection.age)  # expect: float
            if (traffic := connection.traffic()) is not None:
                reveal_type(traffic.quiet)  # expect: float
        reveal_type(len(server.connections))  # expect: int
        reveal_type(server.refusals)  # expect: dict[str, int]
        reveal_type(server.socket)  # expect: socket
        reveal_type(server.fileno())  # expect: int
        reveal_type(server.suspend())  # expect: None
        reveal_type(server.resume())  # expect: None
        end: Callable[[], None] = server.subscribe(observe)
        end()
        server.subscribe(3)  # expect: error
        with server.running(grace=1.0) as address:
            reveal_type(address)  # expect: Any
            reveal_type(server.server_address[1])  # expect: Any
        reveal_type(server.stop(1.0))  # expect: StopReport
        reveal_type(server.stop(0).unfinished)  # expect: tuple[Connection, ...]
        server.stop("soon")  # expect: error


def use_a_group(web: Web) -> None:
    group = everserve.make_group(Lines, "tcp://127.0.0.1:0", "unix:/run/lines", concurrency="pool")
    reveal_type(group)  # expect: ServerGroup[TCPServer]
    reveal_type(group.servers)  # expect: tuple[TCPServer, ...]
    reveal_type(group.addresses)  # expect: tuple[Any, ...]
    with group, group.running(grace=1) as addresses:
        reveal_type(addresses)  # expect: tuple[Any, ...]
    reveal_type(group.stop())  # expect: StopReport
    end: Callable[[], None] = group.subscribe(observe)
    end()
    both = everserve.ServerGroup([Counting(("", 0), Lines), Counting(("", 0), Lines)])
    reveal_type(both)  # expect: ServerGroup[Counting]
    reveal_type(both.servers[0].requests)  # expect: int
    reveal_type(everserve.ServerGroup([web]))  # expect: ServerGroup[Web]
    everserve.ServerGroup([http.server.HTTPServer(("", 0), Files)])  # expect: error
    everserve.make_group({"tcp://127.0.0.1:0": Lines, "udp://127.0.0.1:0": Packets})
    everserve.make_group(Lines, "tcp://127.0.0.1:0", concurency="pool")  # expect: error
    everserve.make_group(Lines, "tcp://127.0.0.1:0", max_conections=1)  # expect: error


class Files(http.server.SimpleHTTPRequestHandler):
    """A handler of the standard library."""


def use_the_standard_library() -> None:
    with Web(("127.0.0.1", 0), Files) as web:
        reveal_type(web)  # expect: Web
        reveal_type(web.server_port)  # expect: int
        reveal_type(web.state)  # expect: ServerState
        with web.running() as address:
            reveal_type(address)  # expect: Any
        reveal_type(web.stop(0))  # expect: StopReport
    ThreadingWeb(("127.0.0.1", 0), Files)
    PoolWeb(("127.0.0.1", 0), Files)
    ForkingWeb(("127.0.0.1", 0), Files)
    FiberRPC(("127.0.0.1", 0))
    everserve.TCPServer(("127.0.0.1", 0), Files)
    everserve.serve(Files, "tcp://127.0.0.1:0")


def observe_kinds(event: events.ServerEvent) -> None:
    match event:
        case events.Failed():
            reveal_type(event.error)  # expect: BaseException
        case events.Refused():
            reveal_type(event.reason)  # expect: str


def observe_one_kind(event: events.Finished) -> None: ...


def use_observers(server: everserve.TCPServer) -> None:
    server.subscribe(observe_kinds)
    server.subscribe(print)
    server.subscribe(observe_one_kind)  # expect: error


def use_options(server: everserve.TCPServer) -> None:
    server.overload = everserve.OverloadPolicy(lambda server, request, address, reason: True)
    server.overload = "shed-idle"
    server.access = everserve.AccessRules.parse("allow 10.0.0.0/8")
    server.trusted_proxies = everserve.Networks.of("10.0.0.0/8")
    server.tls = everserve.TLS("cert.pem", "key.pem")
    server.tls = None
    server.max_connections = None
    server.max_connections = "10"  # expect: error
    server.tls = True  # expect: error


def use_fibers() -> None:
    reveal_type(fibers.offload(len, "text"))  # expect: int
    fibers.offload(len, 3)  # expect: error
    reveal_type(fibers.spawn(print, 1))  # expect: Fiber | SpawnedThread
    with fibers.Condition(fibers.RLock()) as taken, fibers.Lock():
        reveal_type(taken)  # expect: bool
    reveal_type(fibers.current())  # expect: Fiber | None
    reveal_type(fibers.sleep(0.1))  # expect: None
    queue: fibers.Queue[int] = fibers.Queue(3)
    queue.put("text")  # expect: error
    reveal_type(queue.get(timeout=1))  # expect: int
    with fibers.Semaphore(2), fibers.Timeout(1.0) as limit:
        reveal_type(limit)  # expect: Timeout
    reveal_type(fibers.Event().wait(1))  # expect: bool
    reveal_type(fibers.create_connection(("127.0.0.1", 1)))  # expect: FiberSocket


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
    everserve.serve(Squares, "tcp://127.0.0.1:0", executor="processes:4")
    everserve.serve(Squares, "tcp://127.0.0.1:0", executor=ThreadPoolExecutor(4))
    everserve.serve(Squares, "tcp://127.0.0.1:0", executor=4)  # expect: error
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
