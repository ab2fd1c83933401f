"""A campaign: servers whose kernel fails, over every strategy and transport, for some minutes.

``make chaos``, or ``python -m tests.chaos.campaign [--seconds 300] [--seed N] [--strategy S]``.
Each round makes a server, fails a bounded number of its calls, chosen by the seed, while clients
come and go, and then asks what a server must still do: serve a good client, stop, count each connection
once, and leave no descriptor open. A round that fails is printed with the arguments that repeat it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.certificates import Certificates

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
STRATEGIES = ("serial", "threads", "pool", "forks", "fibers")
SCHEMES = ("tcp", "unix", "tls", "udp")
FUNCTIONS = (
    "",
    "accept4",
    "recv",
    "send",
    "epoll_ctl",
    "epoll_wait",
    "poll",
    "eventfd",
    "socket",
    "pthread_create",
)
"""What fails in a round; "": anything."""

CLIENTS = 24
PATIENCE = 1.0
"""Seconds that a client waits while calls fail: what it asked may be lost."""

LIMIT = 30.0
"""Seconds for what must succeed once they do not fail any more."""


def build(folder: Path) -> Path | None:
    """Compile the library; ``None`` where there is no compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return None
    library = folder / "faults.so"
    command = [compiler, "-O2", "-shared", "-fPIC", "-o", library, HERE / "faults.c", "-ldl"]
    subprocess.run(command, check=True)
    return library


@dataclass
class Round:
    """One server, one seed. ``run`` returns what went wrong, or nothing."""

    library: Path
    certificates: Certificates
    strategy: str
    scheme: str
    seed: int
    function: str = ""
    folder: Path = field(init=False)

    def run(self) -> str:
        with tempfile.TemporaryDirectory() as name:
            self.folder = Path(name)
            try:
                return self._run()
            except Exception as error:  # the server has ended, or says nothing
                return f"{error!r}\n{self._log()}"

    def _run(self) -> str:
        with (self.folder / "log").open("w") as log:
            server = subprocess.Popen(
                self._command(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=ROOT,
                env=os.environ | {"LD_PRELOAD": str(self.library)},
            )
        guard = threading.Timer(4 * LIMIT, server.kill)
        guard.start()
        try:
            return self._besiege(server)
        finally:
            guard.cancel()
            server.kill()
            server.communicate()

    def _command(self) -> list[str]:
        pair = self.certificates.server if self.scheme == "tls" else ()
        command = [sys.executable, "-m", "tests.chaos.served", self.strategy, self.scheme]
        return [*command, str(self.folder), *map(str, pair)]

    def _besiege(self, server: Any) -> str:
        address = _address(json.loads(server.stdout.readline()))

        def tell(*command: Any) -> Any:
            server.stdin.write(json.dumps(command) + "\n")
            server.stdin.flush()
            return json.loads(server.stdout.readline())

        tell("arm", self.seed, 4, 40, self.function)
        clients = [threading.Thread(target=self._try, args=(address, n)) for n in range(CLIENTS)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        tell("disarm")
        answer = self._ask(address, LIMIT)
        if answer != b"HELLO\n":
            return f"a good client was answered {answer!r}\n{self._log()}"
        end = tell("end")
        return self._judge(end)

    def _judge(self, end: dict[str, Any]) -> str:
        faults = [name for name in ("unfinished", "descriptors") if end[name]]
        if end["accepted"] != end["ended"]:
            faults.append("accepted and ended differ")
        if end["state"] != "STOPPED":
            faults.append("not stopped")
        return f"{', '.join(faults)}: {end}\n{self._log()}" if faults else ""

    def _try(self, address: Any, number: int) -> None:
        time.sleep(number * 0.005)  # one after the other, but not each after the end of the other
        with suppress(OSError):
            self._ask(address, PATIENCE)

    def _ask(self, address: Any, limit: float) -> bytes:
        kind = socket.SOCK_DGRAM if self.scheme == "udp" else socket.SOCK_STREAM
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        with socket.socket(family, kind) as plain:
            plain.settimeout(limit)
            plain.connect(address)
            if self.scheme != "tls":
                return _exchange(plain)
            context = self.certificates.client_context()
            with context.wrap_socket(plain, server_hostname="localhost") as client:
                return _exchange(client)

    def _log(self) -> str:
        return (self.folder / "log").read_text()[-4000:]

    def __str__(self) -> str:
        function = f" --function {self.function}" if self.function else ""
        return f"--strategy {self.strategy} --scheme {self.scheme} --seed {self.seed}{function}"


def _address(told: Any) -> Any:
    return told if isinstance(told, str) else tuple(told[:2])


def _exchange(client: socket.socket) -> bytes:
    client.sendall(b"hello\n")
    return client.recv(100)


def campaign(chosen: argparse.Namespace) -> int:
    """Rounds until the time is over; the number of those that failed."""
    failed = done = 0
    with tempfile.TemporaryDirectory() as name:
        library = build(Path(name))
        if library is None:
            print("chaos: there is no C compiler (gcc), so no call can be made to fail")
            return 0
        certificates = Certificates(Path(name))
        ends = time.monotonic() + chosen.seconds
        draw = random.Random(chosen.seed)
        while time.monotonic() < ends or not done:
            one = Round(
                library,
                certificates,
                chosen.strategy or draw.choice(STRATEGIES),
                chosen.scheme or draw.choice(SCHEMES),
                chosen.seed if chosen.once else draw.randrange(1 << 32),
                draw.choice(FUNCTIONS) if chosen.function is None else chosen.function,
            )
            done += 1
            found = one.run()
            if found:
                failed += 1
                print(f"FAILED: {one} --once\n{found}", flush=True)
            if chosen.once:
                break
    print(f"chaos: {done} rounds, {failed} failed; the seed was {chosen.seed}")
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--strategy", choices=STRATEGIES)
    parser.add_argument("--scheme", choices=SCHEMES)
    parser.add_argument("--function", choices=FUNCTIONS)
    parser.add_argument("--once", action="store_true", help="one round, of this very seed")
    return 1 if campaign(parser.parse_args()) else 0


if __name__ == "__main__":
    sys.exit(main())
