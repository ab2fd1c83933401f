"""Every example runs, is short, and does what its first line describes."""

import ast
import re
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

import everserve

pytestmark = pytest.mark.usefixtures("unmeasured")

EXAMPLES = Path(__file__).parents[2] / "examples"


@contextmanager
def served(name: str, handler: str, *addresses: str, concurrency: str = "pool") -> Iterator[Any]:
    namespace = runpy.run_path(str(EXAMPLES / name), run_name="example")
    server = everserve.make_server(namespace[handler], *addresses, concurrency=concurrency)
    with server.running() as address:
        yield address


def run(name: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_each_is_short_and_has_a_description(path: Path) -> None:
    source = path.read_text()
    assert len(source.splitlines()) <= 40
    assert ast.get_docstring(ast.parse(source))


@contextmanager
def program(name: str, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], Any]]:
    """The example as a program; the block gets it, and the first of its addresses.

    With another port in place of its fixed one: the fixed one may be taken.
    """
    source = re.sub(r"(://[^:\"]*):\d{4}", r"\1:0", (EXAMPLES / name).read_text())
    code = f"{source.replace('everserve.serve(', 'served(')}"
    start = (
        "import everserve\n"
        "def served(*what, on_ready=lambda servers: None, **options):\n"
        "    def tell(servers):\n"
        "        address = servers[0].server_address\n"
        "        print(address if type(address) is str else address[1], flush=True)\n"
        "        on_ready(servers)\n"
        "    everserve.serve(*what, on_ready=tell, **options)\n" + code
    )
    with subprocess.Popen(
        [sys.executable, "-c", start, *arguments], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        try:
            yield process, int(address) if address.isdecimal() else address
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait() == 0


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("upper_tcp.py", socket.SOCK_STREAM),
        ("upper_udp.py", socket.SOCK_DGRAM),
        ("chat.py", socket.SOCK_STREAM),
        ("keyvalue.py", socket.SOCK_STREAM),
        ("web.py", socket.SOCK_STREAM),
        ("reachable.py", socket.SOCK_STREAM),
    ],
)
def test_each_server_runs_as_a_program(name: str, kind: int) -> None:
    with program(name) as (_, port), socket.socket(type=kind) as client:
        client.connect(("127.0.0.1", port))


def tool(name: str, package: str) -> str:
    """The path of a real client; the test is skipped without it."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: apt-get install {package}")
    return found


def ask(command: list[str], text: str = "") -> str:
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, timeout=50, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_dns_server_answers_dig() -> None:
    pytest.importorskip("dnslib")
    dig = tool("dig", "bind9-dnsutils")
    with program("dns_server.py") as (_, port):
        query = [dig, "@127.0.0.1", "-p", str(port), "+noall", "+answer", "+comments"]
        both = ask([*query, "www.example", "A", "WWW.example", "AAAA"])
        assert re.findall(r"\t60\tIN\t(\S+\t\S+)", both) == ["A\t192.0.2.1", "AAAA\t2001:db8::1"]
        others = ask([*query, "about.example", "TXT", "www.example", "TXT", "none.example", "A"])
        assert re.findall(r"status: (\w+)", others) == ["NOERROR", "NOERROR", "NXDOMAIN"]
        assert '"served by everserve"' in others


def test_the_dns_server_ignores_what_is_no_question() -> None:
    dns = pytest.importorskip("dnslib")
    with served("dns_server.py", "Answer", "udp://127.0.0.1:0") as address:
        with socket.socket(type=socket.SOCK_DGRAM) as client:
            client.settimeout(50)
            client.connect(address)
            client.send(b"no question")
            client.send(dns.DNSRecord.question("www.example").pack())
            assert str(dns.DNSRecord.parse(client.recv(1000)).a.rdata) == "192.0.2.1"


def test_the_syslog_collector_takes_what_logger_writes() -> None:
    logger = tool("logger", "bsdutils")
    with program("syslog_collector.py") as (process, port):
        assert process.stdout is not None
        ask([logger, "-d", "-n", "127.0.0.1", "-P", str(port), "-p", "mail.err", "hello"])
        assert re.fullmatch(r"127\.0\.0\.1 2 error '.*hello'\n", process.stdout.readline())


def test_the_syslog_collector_says_who_logs(tmp_path: Path) -> None:
    logger = tool("logger", "bsdutils")
    path = tmp_path / "log.sock"
    with program("syslog_collector.py", f"unixgram:{path}") as (process, address):
        assert address == str(path)
        assert process.stdout is not None
        with subprocess.Popen(
            [logger, "-d", "-u", str(path), "-p", "user.info", "hello"]
        ) as client:
            assert client.wait() == 0
        line = process.stdout.readline()
    assert re.fullmatch(rf"pid {client.pid} 1 info '.*hello'\n", line)


def test_the_statsd_collector_reports_each_second() -> None:
    nc = tool("nc", "netcat-openbsd")
    sent = "hits:1|c\nhits:2|c\nquery:3.5|ms\nquery:2|ms\nusers:7|g\nnonsense\n"
    with program("statsd_collector.py") as (process, port):
        assert process.stdout is not None
        ask([nc, "-u", "-q", "0", "127.0.0.1", str(port)], sent)
        report = [process.stdout.readline() for _ in range(4)]
    assert report == ["bad lines 1 c\n", "hits 3 c\n", "query 3.5 ms\n", "users 7 g\n"]


def test_upper_tcp() -> None:
    with served("upper_tcp.py", "Upper", "tcp://127.0.0.1:0") as (_, port):
        assert run("upper_tcp_client.py", "--port", str(port), "hello", "world") == "HELLO\nWORLD\n"


def test_upper_udp() -> None:
    with served("upper_udp.py", "Upper", "udp://127.0.0.1:0", concurrency="serial") as (_, port):
        assert run("upper_udp_client.py", "--port", str(port), "hello") == "HELLO\n"


def test_clients_without_a_server_report_it() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
        for name in ("upper_tcp_client.py", "upper_udp_client.py"):
            done = subprocess.run(
                [sys.executable, str(EXAMPLES / name), "--port", port],
                capture_output=True,
                text=True,
                timeout=50,
                check=False,
            )
            assert done.returncode == 1
            assert done.stderr.startswith("no ")
            assert done.stderr.count("\n") == 1


def test_threads() -> None:
    assert [line.split(": ")[2] for line in run("threads.py").splitlines()] == [
        "Hello World 1",
        "Hello World 2",
        "Hello World 3",
    ]


@pytest.mark.parametrize("concurrency", ["threads", "pool", "fibers"])
def test_chat(concurrency: str) -> None:
    with served("chat.py", "Chat", "tcp://127.0.0.1:0", concurrency=concurrency) as address:
        with socket.create_connection(address) as anna, anna.makefile("rw") as a:
            assert a.readline() == "your name?\n"
            print("Anna", file=a, flush=True)
            assert a.readline() == "* hello, Anna\n"
            with socket.create_connection(address) as bert, bert.makefile("rw") as b:
                assert b.readline() == "your name?\n"
                print("Bert", file=b, flush=True)
                assert b.readline() == "* hello, Bert\n"
                print("hi", file=b, flush=True)
                assert [a.readline(), a.readline()] == ["* Bert is here\n", "Bert: hi\n"]
                print("hello", file=a, flush=True)
                assert b.readline() == "Anna: hello\n"
            assert a.readline() == "* Bert has left\n"


@contextmanager
def gateway(concurrency: str) -> Iterator[tuple[Any, Any]]:
    namespace = runpy.run_path(str(EXAMPLES / "gateway.py"), run_name="example")
    server, control = (
        everserve.make_server(namespace[name], "tcp://127.0.0.1:0", concurrency=concurrency)
        for name in ("Device", "Operator")
    )
    namespace["Operator"].gateway = server
    with server.running() as devices, control.running() as operators:
        yield devices, operators


@pytest.mark.parametrize("concurrency", ["pool", "fibers"])
def test_gateway_with_500_devices(concurrency: str) -> None:
    with gateway(concurrency) as (devices, operators), ExitStack() as stack:
        operator = stack.enter_context(socket.create_connection(operators, 20))
        lines = stack.enter_context(operator.makefile("rb"))

        def ask(command: bytes) -> bytes:
            operator.sendall(command + b"\n")
            return lines.readline()

        clients = [stack.enter_context(socket.create_connection(devices, 20)) for _ in range(500)]
        for number, client in enumerate(clients):
            client.sendall(b"device-%d\nready\n" % number)
        reports = sorted(lines.readline() for _ in clients)
        assert reports == sorted(b"device-%d: ready\n" % n for n in range(500))
        assert ask(b"list") == b"500 devices\n"
        assert ask(b"device-17 open the valve") == b"sent\n"
        assert clients[17].recv(100) == b"open the valve\n"
        assert ask(b"all stop") == b"sent to 500 devices\n"
        assert {client.recv(100) for client in clients} == {b"stop\n"}
        assert ask(b"device-500 stop") == b"no device device-500\n"
        assert threading.active_count() < 100


def test_keyvalue() -> None:
    with served("keyvalue.py", "Store", "tcp://127.0.0.1:0") as address:
        with socket.create_connection(address) as client, client.makefile("rw") as stream:
            answers = []
            for command in ("SET a 1 2", "GET a", "GET b", "KEYS", "DEL a", "DEL a", "X", "QUIT"):
                print(command, file=stream, flush=True)
                answers.append(stream.readline().rstrip())
            assert answers[:6] == ["OK", "1 2", "(none)", "a", "OK", "(none)"]
            assert answers[6].startswith("ERROR: SET key value")
            assert answers[7] == "BYE"
            assert stream.readline() == ""


def test_reachable() -> None:
    with (
        served("reachable.py", "Reachable", "tcp://127.0.0.1:0", concurrency="asyncio") as address,
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.socket() as bound,
        socket.create_connection(address, 20) as client,
    ):
        bound.bind(("127.0.0.1", 0))
        listening, refusing = (f"127.0.0.1:{s.getsockname()[1]}" for s in (listener, bound))
        client.sendall(f"{refusing} nonsense {listening}\n{listening}\n".encode())
        lines = client.makefile()
        assert [lines.readline().strip() for _ in range(4)] == [
            f"{refusing} ConnectionRefusedError",
            "nonsense ValueError",
            f"{listening} open",
            f"{listening} open",
        ]


def test_web() -> None:
    with served("web.py", "Hello", "tcp://127.0.0.1:0") as (host, port):
        with urllib.request.urlopen(f"http://{host}:{port}/there") as response:
            assert response.read() == b"Hello 127.0.0.1, you asked for /there\n"
