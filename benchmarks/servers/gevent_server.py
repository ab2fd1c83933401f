"""gevent: a greenlet for each connection, on its own cooperative sockets.

With ``--plain`` the echo handler catches nothing, like the handlers of everserve; gevent then
prints a traceback for each client that resets its connection.
"""

from contextlib import suppress

from command_line import BACKLOG, HOST, READ_BYTES, announce, parser, tls_context
from gevent import socket
from gevent.server import StreamServer
from gevent.ssl import SSLContext


def plain_echo(sock: socket.socket, address: tuple[str, int]) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while data := sock.recv(READ_BYTES):
        sock.sendall(data)


def echo(sock: socket.socket, address: tuple[str, int]) -> None:
    with suppress(ConnectionResetError):
        plain_echo(sock, address)


def lines(sock: socket.socket, address: tuple[str, int]) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with sock.makefile("rb") as received:
        for line in received:
            sock.sendall(line)


def main() -> None:
    known = parser()
    known.add_argument("--plain", action="store_true")
    options = known.parse_args()
    handler = {"echo": plain_echo if options.plain else echo, "lines": lines}[options.mode]
    context = tls_context(options.tls, SSLContext)
    tls = {"ssl_context": context} if context else {}
    server = StreamServer((HOST, options.port), handler, backlog=BACKLOG, **tls)
    server.start()
    announce(server.server_port)
    server.serve_forever()


if __name__ == "__main__":
    main()
