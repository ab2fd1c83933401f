"""System calls that fail though nothing is wrong: by a library, loaded before that of the system, that
lets the n-th call fail.

EAGAIN where the poller has said ready is legal: a fiber asks again, and does not sleep for ever.
ENOMEM and ENOSPC from epoll(7) pass: the loop goes on, and at most one connection is lost.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.certificates import Certificates
from tests.engines import loaded

LIBRARY = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/types.h>

/* FAULT="recv:3:11" lets the third call of recv on fail with errno 11, COUNT times. */
static int fails(const char *name) {
    static int calls = 0;
    const char *fault = getenv("FAULT");
    if (!fault || strncmp(fault, name, strlen(name)) || fault[strlen(name)] != ':') return 0;
    int first = atoi(fault + strlen(name) + 1);
    int count = atoi(getenv("COUNT"));
    calls++;
    if (calls < first || calls >= first + count) return 0;
    errno = atoi(strrchr(fault, ':') + 1);
    return 1;
}
#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
ssize_t recv(int fd, void *b, size_t n, int f) {
    return fails("recv") ? -1 : REAL(recv)(fd, b, n, f);
}
ssize_t send(int fd, const void *b, size_t n, int f) {
    return fails("send") ? -1 : REAL(send)(fd, b, n, f);
}
ssize_t sendmsg(int fd, const struct msghdr *m, int f) {
    return fails("sendmsg") ? -1 : REAL(sendmsg)(fd, m, f);
}
int epoll_ctl(int e, int op, int fd, struct epoll_event *ev) {
    return fails("epoll_ctl") ? -1 : REAL(epoll_ctl)(e, op, fd, ev);
}
int epoll_wait(int e, struct epoll_event *ev, int n, int t) {
    return fails("epoll_wait") ? -1 : REAL(epoll_wait)(e, ev, n, t);
}
"""

PROGRAM = textwrap.dedent("""
    import json, os, signal, socket, ssl, sys, threading
    import everserve

    class Echo(everserve.StreamRequestHandler):
        def handle(self):
            for line in self.rfile:
                self.wfile.write(line)

    def serve(transport, certificate, key, tolerated):
        kind = everserve.FiberUnixStreamServer if transport == "unix" else everserve.FiberTCPServer
        place = os.path.join(os.path.dirname(certificate), f"s{os.getpid()}")
        server = kind(place if transport == "unix" else ("127.0.0.1", 0), Echo,
                      bind_and_activate=False)
        if transport == "TLS":
            server.tls = everserve.TLS(certificate, key)
            context = ssl._create_unverified_context()
        server.server_bind(); server.server_activate()
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        lost = 0
        for _connection in range(5):
            client = socket.socket(server.address_family)
            client.settimeout(10)
            client.connect(server.server_address)
            try:
                if transport == "TLS":
                    client = context.wrap_socket(client)
                for size in (10, 20_000, 300_000):
                    line = b"x" * size + b"\\n"
                    client.sendall(line)
                    got = client.makefile("rb").readline()
                    assert got == line, (len(got), size)
            except (OSError, AssertionError) as error:
                if isinstance(error, TimeoutError):
                    raise
                lost += 1; print(repr(error), file=sys.stderr)
            client.close()
        server.shutdown()
        thread.join(10)
        assert not thread.is_alive()
        server.server_close()
        assert lost <= tolerated, lost

    for line in sys.stdin:                   # each case in a child, which ends as any program
        variables, log, arguments = json.loads(line)
        child = os.fork()
        if child == 0:
            signal.alarm(15)
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT), 2)
            os.environ.update(variables)
            serve(*arguments)
            break
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
""")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("there is no C compiler, or no LD_PRELOAD")
    folder = tmp_path_factory.mktemp("faults")
    (folder / "faults.c").write_text(LIBRARY)
    target = folder / "faults.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", target, folder / "faults.c", "-ldl"], check=True
    )
    return target


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


class Programs:
    """A process whose children serve some clients each, while calls of theirs fail."""

    def __init__(self, process: subprocess.Popen[str], certificates: Certificates, log: Path):
        self._process = process
        self._certificates = certificates
        self._log = log

    def serve(self, transport: str, fault: str, *, count: int = 1, tolerated: int = 0) -> str:
        """Serve, and lose at most ``tolerated`` connections; what has been logged."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._log.unlink(missing_ok=True)
        variables = {"FAULT": fault, "COUNT": str(count)}
        case = [variables, str(self._log), [transport, *self._certificates.server, tolerated]]
        self._process.stdin.write(f"{json.dumps(case, default=str)}\n")
        self._process.stdin.flush()
        status = self._process.stdout.readline()
        logged = self._log.read_text()
        assert status == "0\n", logged
        return logged


@pytest.fixture(scope="module", params=["native", "python"])
def programs(
    request: pytest.FixtureRequest, library: Path, certificates: Certificates, tmp_path_factory: Any
) -> Iterator[Programs]:
    loaded(request.param)
    environment = {"EVERSERVE_ENGINE": request.param, "LD_PRELOAD": str(library)}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Programs(process, certificates, tmp_path_factory.mktemp("logs") / "log")


@pytest.mark.parametrize("transport", ["TCP", "unix", "TLS"])
@pytest.mark.parametrize("call", ["recv", "send", "sendmsg"])
def test_a_refusal_by_a_ready_socket_is_asked_again(
    programs: Programs, transport: str, call: str
) -> None:
    for first in (3, 5):
        programs.serve(transport, f"{call}:{first}:{errno.EAGAIN}", count=2)


@pytest.mark.parametrize("code", [errno.ENOMEM, errno.ENOSPC])
@pytest.mark.parametrize("first", [1, 2, 5, 9])
def test_an_exhausted_wait_is_a_pause(programs: Programs, code: int, first: int) -> None:
    logged = programs.serve("TCP", f"epoll_wait:{first}:{code}", count=3)
    assert "the event loop goes on" in logged


@pytest.mark.parametrize("code", [errno.ENOMEM, errno.ENOSPC])
@pytest.mark.parametrize("first", [2, 3, 4, 5, 6])
def test_what_cannot_be_registered_costs_itself_at_most(
    programs: Programs, code: int, first: int
) -> None:
    programs.serve("TCP", f"epoll_ctl:{first}:{code}", tolerated=1)
