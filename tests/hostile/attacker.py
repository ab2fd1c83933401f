"""The attacker: a separate process that attacks a server by commands in lines of JSON.

It is separate because the children of a forking server would hold copies of the test's sockets, and
keep connections open that the test has closed. Run as ``python -m tests.hostile.attacker``.
"""

from __future__ import annotations

import json
import socket
import ssl
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

LIMIT = 20.0
"""The time limit of a wait in seconds; a passing test never comes near it."""

PACE = 0.01
"""Seconds between the bytes of a client that drips."""

RESET_ON_CLOSE = b"\1\0\0\0\0\0\0\0"

held: list[socket.socket] = []


def connect(address: Any) -> socket.socket:
    """A stream connected to ``[host, port]`` or to a Unix path."""
    if isinstance(address, list):
        return socket.create_connection(tuple(address[:2]), LIMIT)
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(LIMIT)
    client.connect(address)
    return client


def part(client: socket.socket, how: str) -> None:
    """Disconnect by ``"close"``, ``"reset"``, or ``"end"``: end the own half, and read the rest."""
    if how == "reset":
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    elif how == "end":
        with suppress(OSError):
            client.shutdown(socket.SHUT_WR)
        read_all(client)
    client.close()


def read_all(client: socket.socket) -> bytes:
    """All bytes until the end or a reset."""
    received = bytearray()
    with suppress(ConnectionError, ssl.SSLError):
        while part := client.recv(65536):
            received += part
    return bytes(received)


# --- the commands -------------------------------------------------------------------------------------


def ask(address: Any, line: str = "hello\n", before: str = "", tls: Any = None) -> dict[str, Any]:
    """Be a good client: ``before`` in cleartext, then the line. Returns the answer or the error."""
    try:
        with connect(address) as raw:
            raw.sendall(bytes.fromhex(before))
            client = secured(raw, **tls) if tls is not None else raw
            with client:
                client.sendall(line.encode())
                return {"answer": client.makefile("rb").readline().decode()}
    except OSError as error:
        return {"error": type(error).__name__, "text": str(error)}


def secured(
    raw: socket.socket, ca: str, name: str = "localhost", pair: Any = None
) -> ssl.SSLSocket:
    return context_of(ca, pair).wrap_socket(raw, server_hostname=name)


def context_of(ca: str, pair: Any = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca)
    if pair is not None:
        context.load_cert_chain(*pair)
    return context


def hold(address: Any, count: int, payload: str = "", end: bool = False) -> int:
    """Open connections, send some bytes (in hex), and keep them; ``end`` the own half first."""
    for _ in range(count):
        try:
            client = connect(address)
        except ConnectionResetError:
            continue  # refused before this process has looked at it
        held.append(client)
        with suppress(OSError):  # refused already
            client.sendall(bytes.fromhex(payload))
            if end:
                client.shutdown(socket.SHUT_WR)
    return len(held)


def hold_secure(address: Any, count: int, payload: str, tls: Any) -> int:
    """As ``hold``, after a handshake."""
    for _ in range(count):
        client = secured(connect(address), **tls)
        held.append(client)
        client.sendall(bytes.fromhex(payload))
    return len(held)


def sip(pause: float) -> int:
    """Read all from the first held connection, with a pause before each of the first reads."""
    client, total = held[0], 0
    room, other = socket.socketpair()
    with room, other:
        room.settimeout(pause)
        for _ in range(100):
            total += len(client.recv(4096))
            with suppress(TimeoutError):
                room.recv(1)
    return total + len(read_all(client))


def listen(count: int, size: int) -> list[str]:
    """The next ``size`` bytes that each of the last ``count`` held connections receives, in hex."""
    replies = []
    for client in held[-count:]:
        received = b""
        while len(received) < size and (part := client.recv(size - len(received))):
            received += part
        replies.append(received.hex())
    return replies


def send_again(payload: str) -> None:
    """Send more bytes on the first held connection, and make it the next for ``listen``."""
    held[0].sendall(bytes.fromhex(payload))
    held.append(held.pop(0))


def receive(count: int) -> list[str]:
    """The bytes that the first ``count`` held connections receive until their end, in hex."""
    return [read_all(client).hex() for client in held[:count]]


def release(how: str = "close") -> int:
    """Close all held connections."""
    count = len(held)
    while held:
        part(held.pop(), how)
    return count


def scan(address: Any, count: int, how: str, payload: str = "") -> int:
    """Connect, send some bytes, and disconnect, many times."""
    done = 0
    for _ in range(count):
        with suppress(ConnectionError):
            client = connect(address)
            with suppress(OSError):
                client.sendall(bytes.fromhex(payload))
            part(client, how)
            done += 1
    return done


def exchange(address: Any, payload: str, end: bool = True) -> str:
    """Send some bytes, and read until the end; both in hex."""
    try:
        client = connect(address)
    except ConnectionError:
        return ""
    with client:
        with suppress(OSError):  # refused already
            client.sendall(bytes.fromhex(payload))
            if end:
                client.shutdown(socket.SHUT_WR)
        return read_all(client).hex()


def drip(address: Any, count: int, payload: str) -> list[int]:
    """``count`` clients that send a byte at intervals. Returns how many bytes each has sent."""
    clients = [connect(address) for _ in range(count)]
    sent = [0] * count
    open_ones = set(range(count))
    for byte in bytes.fromhex(payload):
        for number in tuple(open_ones):
            client = clients[number]
            client.settimeout(PACE / count)
            try:
                client.sendall(bytes([byte]))
                sent[number] += 1
                if not client.recv(100):
                    open_ones.discard(number)
            except TimeoutError:
                pass
            except ConnectionError:
                open_ones.discard(number)
        if not open_ones:
            break
    for client in clients:
        client.close()
    return sent


def cut(address: Any, ca: str, step: int, how: str) -> bool:
    """Do a handshake up to ``step``, then disconnect; false if the handshake was over before.

    Each flight counts as three steps: before it, in its middle, after it.
    """
    raw = connect(address)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context_of(ca).wrap_bio(incoming, outgoing, server_hostname="localhost")
    at = 0
    while True:
        agreed = True
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            agreed = False
        flight = outgoing.read()
        for piece in (b"", flight[: len(flight) // 2], flight[len(flight) // 2 :]):
            raw.sendall(piece)
            if at == step:
                part(raw, how)
                return True
            at += 1
        if agreed:
            part(raw, how)
            return False
        incoming.write(raw.recv(65536))


def hello(ca: str) -> str:
    """A TLS client's first bytes, in hex."""
    outgoing = ssl.MemoryBIO()
    tls = context_of(ca).wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read().hex()


COMMANDS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        ask,
        cut,
        drip,
        receive,
        hello,
        hold,
        hold_secure,
        listen,
        release,
        send_again,
        scan,
        sip,
        exchange,
    )
}


def main() -> None:
    for line in sys.stdin:
        command = json.loads(line)
        try:
            reply = {"value": COMMANDS[command.pop("do")](**command)}
        except Exception as error:
            reply = {"error": repr(error)}
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
