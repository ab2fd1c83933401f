"""The load generator: it stays on loopback, is bounded, and detects wrong replies."""

import json
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import pytest
from benchmarks.measure import Failed, Figures, Settings, run_load, served
from benchmarks.peers import PEERS
from benchmarks.programs import CIPHER

from benchmarks import measure, programs

pytestmark = [
    pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler"),
    pytest.mark.usefixtures("unmeasured"),
]

SETTINGS = Settings(server_core=None, load_core=None, seconds=0.1, warmup=0.02, idle=20)
SMALL = ("--connections", "4", "--bytes", "64")
TLS = ("--tls", CIPHER)


def has_openssl() -> bool:
    return shutil.which("cc") is not None and programs.has_headers()


needs_openssl = pytest.mark.skipif(not has_openssl(), reason="needs OpenSSL's headers")


def load(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(programs.load(tls="--tls" in arguments)), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


@contextmanager
def answering(answer: bytes) -> Iterator[int]:
    """The port of a server that sends ``answer`` to its first client and then closes."""

    def serve() -> None:
        client, _ = listener.accept()
        with client:
            client.recv(4096)
            client.sendall(answer)
            client.shutdown(socket.SHUT_WR)
            client.recv(4096)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(10)


@pytest.mark.parametrize(
    "wrong",
    [
        ("--host", "192.0.2.1"),
        ("--connections", "30000"),
        ("--connections", "15000", "--idle", "15000"),
        ("--seconds", "100000"),
        ("--bytes", "many"),
    ],
    ids=lambda wrong: wrong[0],
)
def test_refuses_what_is_out_of_bounds(wrong: tuple[str, ...]) -> None:
    done = load("echo", "--port", "9", *wrong)
    assert done.returncode == 2
    assert done.stdout == ""


def test_refuses_an_unknown_mode() -> None:
    assert load("flood", "--port", "9").returncode == 2


def test_ends_with_a_message_if_nothing_listens() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        done = load("echo", "--port", str(closed.getsockname()[1]))
    assert done.returncode == 1
    assert "connect" in done.stderr


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (b"x" * 64, "something else came back than was sent"),
        (b"x" * 65, "more came back than was sent"),
        (b"", "closed by the server"),
    ],
    ids=["wrong", "long", "none"],
)
def test_notices_a_wrong_reply(answer: bytes, fault: str) -> None:
    with answering(answer) as port:
        done = load(
            "echo",
            *("--port", str(port), "--connections", "1", "--bytes", "64"),
            *("--seconds", "0.2", "--warmup", "0"),
        )
    result = json.loads(done.stdout)
    assert result["errors"] == 1
    assert fault in result["first_error"]


@pytest.mark.parametrize(
    ("mode", "answer", "fault"),
    [
        ("udp", b"x" * 64, "something else came back than was sent"),
        ("collect", b"x", "something else came back than a count"),
        ("collect", b"9999999", "more were counted than sent"),
    ],
)
def test_notices_a_wrong_datagram(mode: str, answer: bytes, fault: str) -> None:
    def serve() -> None:
        _, client = server.recvfrom(100)
        server.sendto(answer, client)

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=serve)
        thread.start()
        done = load(
            mode,
            *("--port", str(server.getsockname()[1]), "--connections", "1", "--bytes", "64"),
            *("--window", "2", "--seconds", "0.1", "--warmup", "0"),
        )
        thread.join(10)
    assert fault in json.loads(done.stdout)["first_error"]


@pytest.mark.parametrize(
    ("mode", "arguments"),
    [
        ("echo", ("echo", *SMALL)),
        ("echo", ("echo", *SMALL, "--idle", "20")),
        ("echo", ("echo", "--connections", "2", "--bytes", "3000000")),
        ("echo", ("connect", *SMALL)),
        ("lines", ("echo", *SMALL, "--lines", "64")),
        ("echo", ("echo", *SMALL, "--lines", "64", "--framed", "1")),
        ("udp", ("udp", *SMALL, "--window", "8")),
        ("collect", ("collect", *SMALL, "--window", "8")),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_measures_a_correct_server(mode: str, arguments: tuple[str, ...]) -> None:
    with served(PEERS["c"], mode, "unused", SETTINGS) as server:
        figures = run_load(server, SETTINGS, *arguments)
    assert figures["messages"] > 0
    assert figures["errors"] == figures["starved"] == 0


# ---------------------------------------------------------------- TLS


@needs_openssl
@pytest.mark.parametrize(
    "arguments",
    [
        ("echo", *SMALL),
        ("echo", *SMALL, "--idle", "5"),
        ("echo", "--connections", "2", "--bytes", "3000000"),
        ("connect", *SMALL),
        ("handshake", *SMALL),
    ],
    ids="-".join,
)
@pytest.mark.parametrize("peer", ["everserve", "asyncio-protocol"])
def test_uses_tls(peer: str, arguments: tuple[str, ...]) -> None:
    with served(PEERS[peer], "tls", sys.executable, SETTINGS) as server:
        figures = run_load(server, SETTINGS, *arguments, *TLS)
        assert server.complaint() == ""
    assert figures["messages"] > 0
    assert figures["errors"] == figures["starved"] == 0


@pytest.mark.parametrize("mode", ["echo", "handshake"])
def test_has_no_tls_without_openssl(mode: str) -> None:
    program = [str(programs.load()), mode, "--port", "9", *TLS]
    assert subprocess.run(program, capture_output=True, timeout=30, check=False).returncode == 2


@contextmanager
def answering_tls(answer: bytes, **versions: ssl.TLSVersion) -> Iterator[int]:
    """As ``answering``, with TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(programs.certificate())
    for name, version in versions.items():
        setattr(context, name, version)

    def serve() -> None:
        client, _ = listener.accept()
        with client, suppress(OSError), context.wrap_socket(client, server_side=True) as secure:
            secure.recv(4096)
            secure.sendall(answer)
            secure.recv(4096)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(10)


@needs_openssl
@pytest.mark.parametrize("mode", ["echo", "handshake"])
def test_notices_a_wrong_reply_over_tls(mode: str) -> None:
    with answering_tls(b"x" * 64) as port:
        done = load(
            mode,
            *("--port", str(port), "--connections", "1", "--bytes", "64"),
            *("--seconds", "0.2", "--warmup", "0", *TLS),
        )
    assert "something else came back than was sent" in json.loads(done.stdout)["first_error"]


@needs_openssl
def test_a_handshake_requires_tls_1_3() -> None:
    with answering_tls(b"", maximum_version=ssl.TLSVersion.TLSv1_2) as port:
        done = load(
            "handshake",
            *("--port", str(port), "--connections", "1", "--seconds", "0.2", "--warmup", "0", *TLS),
        )
    result = json.loads(done.stdout)
    assert result["messages"] == 0
    assert "an alert" in result["first_error"]


# ---------------------------------------------------------------- limits and deadlines


@pytest.mark.parametrize("peer", ["everserve-armed", "everserve-patient"])
def test_limits_and_deadlines_admit_the_load(peer: str) -> None:
    with served(PEERS[peer], "echo", sys.executable, SETTINGS) as server:
        figures = run_load(server, SETTINGS, "echo", *SMALL)
        assert server.complaint() == ""
    assert figures["errors"] == figures["starved"] == 0


@pytest.mark.parametrize("peer", ["everserve-full", "everserve-threads-full"])
def test_counts_the_refusals_of_a_full_server(peer: str) -> None:
    with served(PEERS[peer], "echo", sys.executable, SETTINGS) as server:
        figures = measure.refused(server, SETTINGS, ("refused", *SMALL, "--idle", "1"))
    assert figures["messages"] > 0
    assert figures["cpu_us"] > 0


def test_counts_denied_connections() -> None:
    with served(PEERS["everserve-denied"], "echo", sys.executable, SETTINGS) as server:
        assert measure.refused(server, SETTINGS, ("refused", *SMALL))["messages"] > 0


def test_an_admitted_connection_is_a_failure() -> None:
    with served(PEERS["everserve"], "echo", sys.executable, SETTINGS) as server:
        with pytest.raises(Failed, match="4 connections were admitted"):
            measure.refused(server, SETTINGS, ("refused", *SMALL))


def drip(due: float, *options: str) -> Figures:
    """Ten clients that drip, and a server with these options that may cut them."""
    peer = replace(PEERS["everserve"], arguments=options)
    with served(peer, "lines", sys.executable, SETTINGS) as server:
        return run_load(server, SETTINGS, "drip", *SMALL, "--drips", "10", "--due", str(due))


def test_drips_are_cut_when_they_are_due() -> None:
    figures = drip(0.5, "--set=idle_timeout=0.5")
    assert figures["messages"] > 0
    assert figures["last_cut"] > 0


@pytest.mark.parametrize(
    ("due", "options", "fault"),
    [
        (5, ("--set=idle_timeout=0.3",), "before it was due"),
        (0.3, (), "10 drips were not cut"),
        (0.1, (), "make it shorter"),
    ],
    ids=["early", "never", "while measuring"],
)
def test_notices_drips_that_are_not_cut_when_due(
    due: float, options: tuple[str, ...], fault: str
) -> None:
    with pytest.raises(Failed, match=fault):
        drip(due, *options)


def test_measures_the_other_connections_among_drips() -> None:
    settings = replace(SETTINGS, drips=10)
    peer = replace(PEERS["everserve"], arguments=("--set=idle_timeout=0.5",))
    with served(peer, "lines", sys.executable, settings) as server:
        figures = measure.among_drips(server, settings, (*SMALL, "--due", "0.5"))
    assert figures["share"] > 0
    assert figures["peak_mb"] >= 0
