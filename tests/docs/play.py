"""Runs one Python block of the documentation, in its own process: ``python play.py FILE``.

If it serves without end, a client talks to it as the page shows, and then stops it. A busy machine may
hold any fiber for 0.1 s, and no page shows a report of that: only what a block itself sets is reported.
"""

from __future__ import annotations

import socket
import ssl
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import everserve
from everserve.process.run import run

LIMIT = 20.0


def main(file: str, *talk: str) -> None:
    """Run the block in ``file``; ``talk`` is a line for its server, and the answer."""
    serving = sys.modules["everserve.serving"]

    def serve_and_end(group: Any, *, grace: float, on_ready: Any) -> Any:
        errors: list[BaseException] = []

        def converse() -> None:
            try:
                if talk:
                    _talk(group.servers[0], *talk)
            except BaseException as error:
                errors.append(error)
            group.stop()

        def ready() -> None:
            on_ready()
            threading.Thread(target=converse).start()

        report = run(group, grace=grace, on_ready=ready)
        if errors:
            raise errors[0]
        return report

    serving.run = serve_and_end  # type: ignore[attr-defined]
    everserve.FiberMixIn.stall_threshold = everserve.AsyncMixIn.stall_threshold = LIMIT
    code = Path(file).read_text()
    exec(compile(code, file, "exec"), {"__name__": "__main__"})


def _talk(server: Any, question: str, answer: str) -> None:
    with ExitStack() as stack:
        sock: Any = socket.socket(server.socket.family, server.socket.type)
        stack.enter_context(sock)
        sock.settimeout(LIMIT)
        sock.connect(server.socket.getsockname())
        if server.tls is not None and server.implicit_tls:
            context = ssl.create_default_context(cafile="authority.pem")
            context.load_cert_chain("client.pem", "client.key")
            sock = stack.enter_context(context.wrap_socket(sock, server_hostname="localhost"))
        sock.sendall(f"{question}\n".encode())
        reply = sock.recv(65536).decode().strip()
        assert reply == answer, f"{question!r} was answered with {reply!r}, not {answer!r}"


if __name__ == "__main__":
    main(*sys.argv[1:])
