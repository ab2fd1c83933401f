"""The private names of everserve on a program's objects: at most one beside the standard library's.

    python tests/collisions/private_names.py

prints them for each public class, and fails if there are more.
"""

from __future__ import annotations

import socket
import socketserver
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import everserve

LIMIT = 5.0
ALLOWED = 1

STANDARD = {
    "_BaseServer__is_shut_down",
    "_BaseServer__shutdown_request",
    "_handle_request_noblock",
    "_threads",
}
"""The private names of the standard library that programs use."""


def classes() -> dict[str, type]:
    """The public servers, mix-ins and handlers."""
    return {
        name: getattr(everserve, name)
        for name in sorted(everserve.__all__)
        if name.endswith(("Server", "MixIn", "RequestHandler"))
    }


def table() -> dict[str, list[str]]:
    """The private names of each public class, and of an object of it while it works."""
    rows = {}
    for name, made in classes().items():
        found = set(dir(made)) | set(_live_names(name, made))
        rows[name] = sorted(_private(found) - _of_others(made))
    return rows


def _private(names: set[str]) -> set[str]:
    return {name for name in names if name.startswith("_") and not name.endswith("__")}


def _of_others(made: type) -> set[str]:
    """The names that the standard library has: on its class of that name, or on a foreign base."""
    others = [base for base in made.__mro__ if not base.__module__.startswith("everserve")]
    others.append(getattr(socketserver, made.__name__, object))
    return STANDARD.union(*(dir(base) for base in others))


def _live_names(name: str, made: Any) -> set[str]:
    with tempfile.TemporaryDirectory() as path:
        if name.endswith("Handler"):
            return _names_of_handler(made, Path(path))
        if name.endswith("MixIn"):
            kind = everserve.ThreadingUDPServer if "Session" in name else socketserver.TCPServer
            made = type(made.__name__, (made, kind), {})
        if name == "BaseServer":
            return _names(made(None, _Upper))
        return _names_of_server(made, Path(path))


def _names(thing: Any) -> set[str]:
    return {*dir(thing), *vars(thing)}


def _names_of_server(made: Any, folder: Path) -> set[str]:
    """At each stage of its life."""
    names: set[str] = set()
    with made(_address(made, folder), _Upper) as server:
        for _ in _stages(server, folder):
            names |= _names(server)
    return names | _names(server)


def _names_of_handler(made: Any, folder: Path) -> set[str]:
    """While it handles a request, and after an access to all new attributes."""
    names: set[str] = set()

    class Looking(made):  # type: ignore[misc]
        def handle(self) -> None:
            _answer(self)
            for public in ("peer", "deadline", "cancelled", "truncated"):
                getattr(self, public)

        def finish(self) -> None:
            super().finish()
            names.update(_names(self))

    class Awaiting(Looking):
        async def handle(self) -> None:
            self.wfile.write((await self.rfile.read1()).upper())
            for public in ("peer", "deadline", "cancelled", "truncated"):
                getattr(self, public)

    awaits = made is everserve.AsyncStreamRequestHandler
    datagrams = made.__name__.startswith("Datagram")
    serial = everserve.UDPServer if datagrams else everserve.TCPServer
    kind = everserve.AsyncTCPServer if awaits else serial
    with kind(_address(kind, folder), Awaiting if awaits else Looking) as server:
        for _ in _stages(server, folder):
            pass
    return names


class _Upper(everserve.BaseRequestHandler):
    def handle(self) -> None:
        _answer(self)


def _answer(handler: Any) -> None:
    if isinstance(handler.request, tuple):
        packet, sock = handler.request
        sock.sendto(packet.upper(), handler.client_address)
    else:
        handler.request.sendall(handler.request.recv(100).upper())


def _stages(server: Any, folder: Path) -> Iterator[str]:
    """Let the server serve one request, and stop before each change of its state."""
    yield "made"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    with _client(server, folder) as client:
        client.sendall(b"ping")
        if client.recv(100) != b"PING":
            raise AssertionError(f"{type(server).__name__} gave the wrong answer")
        yield "serving"
    server.shutdown()
    thread.join(LIMIT)
    yield "shut down"


def _client(server: Any, folder: Path) -> socket.socket:
    client = socket.socket(server.socket.family, server.socket_type)
    client.settimeout(LIMIT)
    if server.socket_type == socket.SOCK_DGRAM:
        client.bind(str(folder / "client") if _is_unix(server) else ("127.0.0.1", 0))
    client.connect(server.server_address)
    return client


def _address(made: Any, folder: Path) -> Any:
    return str(folder / "server") if _is_unix(made) else ("127.0.0.1", 0)


def _is_unix(server: Any) -> bool:
    return bool(server.address_family not in (socket.AF_INET, socket.AF_INET6))


def main() -> int:
    rows = table()
    width = max(map(len, rows))
    for name, private in rows.items():
        print(f"{name:{width}}  {len(private):3}  {' '.join(private)}".rstrip())
    return int(any(len(private) > ALLOWED for private in rows.values()))


if __name__ == "__main__":
    sys.exit(main())
