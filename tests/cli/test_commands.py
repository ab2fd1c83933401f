"""``everserve run`` as a user types it."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from tests.certificates import Certificates, Pair

ROOT = Path(__file__).parents[2]
UPPER = str(ROOT / "examples" / "upper_tcp.py") + ":Upper"
UPPER_UDP = str(ROOT / "examples" / "upper_udp.py") + ":Upper"


def everserve(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "everserve", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        timeout=50,
        check=False,
    )


@contextmanager
def serving(
    *arguments: str, lines: int = 1, **environment: str
) -> Iterator[tuple["subprocess.Popen[str]", list[str]]]:
    with subprocess.Popen(
        [sys.executable, "-m", "everserve", "run", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"} | environment,
    ) as process:
        assert process.stdout is not None
        output = [process.stdout.readline() for _ in range(lines + 1)]
        try:
            yield process, output
        finally:
            process.kill()


def port_of(line: str) -> int:
    found = re.search(r":(\d+)(;|$)", line)
    assert found, line
    return int(found[1])


def test_it_serves_prints_its_address_and_drains() -> None:
    with serving(UPPER, "--bind", "tcp://127.0.0.1:0") as (process, output):
        port = port_of(output[0])
        assert output[0] == (
            f"everserve: listening on tcp://127.0.0.1:{port}; talk to it: nc 127.0.0.1 {port}\n"
        )
        assert output[1] == f"everserve: process {process.pid}; press Ctrl-C to stop\n"
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"hello\n")
            assert client.recv(100) == b"HELLO\n"
            process.send_signal(signal.SIGTERM)
            assert process.stdout is not None
            assert (
                process.stdout.readline() == "everserve: SIGTERM: draining (a second signal cuts)\n"
            )
            client.sendall(b"bye\n")
            assert client.recv(100) == b"BYE\n"
        output, errors = process.communicate()
        assert re.fullmatch(r"everserve: stopped: [01] finished, 0 cut in \d+\.\d\d s\n", output)
        assert (process.returncode, errors) == (0, "")


def test_a_second_signal_cuts_and_lists_the_connections() -> None:
    with serving(UPPER, "--bind", "tcp://127.0.0.1:0", "--grace", "3600") as (process, output):
        with socket.create_connection(("127.0.0.1", port_of(output[0]))) as client:
            client.sendall(b"hello\n")
            assert client.recv(100) == b"HELLO\n"
            process.send_signal(signal.SIGINT)
            assert process.stdout is not None
            process.stdout.readline()
            process.send_signal(signal.SIGINT)
            assert client.recv(100) == b""
            output, _ = process.communicate()
            assert "stopped: 0 finished, 1 cut" in output
            assert f"cut {client.getsockname()!r} after" in output


def test_several_addresses_of_any_kind(tmp_path: Path) -> None:
    path = tmp_path / "s"
    abstract = f"unix:@everserve-test-{os.getpid()}"
    binds = ["tcp://[::1]:0", f"unix:{path}", abstract, "tcp://*:0"]
    arguments = [word for bind in binds for word in ("--bind", bind)]
    with serving(UPPER, *arguments, lines=4) as (process, output):
        assert re.search(r"on tcp://\[::1\]:\d+; talk to it: nc ::1 \d+$", output[0])
        assert output[1].endswith(f"on unix:{path}; talk to it: nc -U {path}\n")
        assert output[2].endswith(f"on {abstract}\n")
        assert re.search(r"on tcp://\*:\d+; talk to it: nc 127.0.0.1 \d+$", output[3])
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"hello\n")
            assert client.recv(100) == b"HELLO\n"
        process.send_signal(signal.SIGTERM)
        process.communicate()
    assert not path.exists()


def test_options_by_environment() -> None:
    with serving(
        EVERSERVE_TARGET=UPPER_UDP,
        EVERSERVE_BIND="udp://127.0.0.1:0",
        EVERSERVE_CONCURRENCY="serial",
        EVERSERVE_LOG_LEVEL="info",
        EVERSERVE_LOG_FORMAT="json",
    ) as (process, output):
        assert "nc -u 127.0.0.1" in output[0]
        with socket.socket(type=socket.SOCK_DGRAM) as client:
            client.sendto(b"hello", ("127.0.0.1", port_of(output[0])))
            assert client.recv(100) == b"HELLO"
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate()
        assert '"event": "Serving"' in errors


def test_help_shows_examples() -> None:
    for arguments in (["--help"], ["run", "--help"], []):
        done = everserve(*arguments)
        assert done.returncode == 0
        assert "everserve run myapp:Handler --concurrency threads --grace 30" in done.stdout
    assert "--max-workers" in everserve("run", "--help").stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run"], "Missing argument"),
        (["walk"], "No such command"),
        (["run", "--frobnicate"], "No such option"),
        (["run", "no_such_module:H"], "there is no module 'no_such_module'"),
        (["run", "json:dumps"], "is not a request handler"),
        (["run", UPPER, "--bind", "127.0.0.1"], "cannot read the address '127.0.0.1'"),
        (["run", UPPER, "--concurrency", "magic"], "magic"),
        (
            ["run", UPPER, "--concurrency", "pool", "--max-workers", "0"],
            "'0': expected a number from 1 up",
        ),
        (["run", UPPER, "--max-children", "3"], "max_children has no meaning for"),
    ],
)
def test_bad_usage_is_one_line_and_status_2(arguments: list[str], words: str) -> None:
    done = everserve(*arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.startswith("everserve: ")
    assert done.stderr.count("\n") == 1


def test_an_error_of_the_system_is_one_line_and_status_1(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        cases = {
            f"tcp://127.0.0.1:{port}": f"127.0.0.1:{port}: is in use",
            "tcp://192.0.2.1:9999": "192.0.2.1:9999: is not an address of this machine",
            f"unix:{tmp_path}/no/such/socket": "no such directory",
            "fd://999": "fd://999: is not open",
            "tcp://no-such-host.invalid:1": "there is no host with this name",
        }
        for address, words in cases.items():
            done = everserve("run", UPPER, "--bind", "tcp://127.0.0.1:0", "--bind", address)
            assert done.returncode == 1, address
            assert words in done.stderr
            assert done.stderr.count("\n") == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may do it")
def test_no_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    done = everserve("run", UPPER, "--bind", f"unix:{tmp_path}/s")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "no permission" in done.stderr


def test_without_click_it_names_the_package_to_install() -> None:
    code = "import sys; sys.modules['click'] = None; import everserve.cli; everserve.cli.main()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 1
    assert done.stderr == (
        "everserve: the command line needs click: pip install 'everserve[cli]'\n"
    )


# --- fit for the internet ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


def ask_securely(port: int, certificates: Certificates) -> tuple[bytes, str]:
    """The answer, and the serial number of the server's certificate."""
    context = certificates.client_context()
    with socket.create_connection(("127.0.0.1", port)) as raw:
        with context.wrap_socket(raw, server_hostname="localhost") as client:
            client.sendall(b"hello\n")
            shown = client.getpeercert()
            assert shown is not None
            return client.makefile("rb").readline(), str(shown["serialNumber"])


def test_tls_and_renewed_certificates_at_sighup(certificates: Certificates, tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"

    def install(pair: Pair) -> None:
        cert.write_bytes(pair.cert.read_bytes())
        key.write_bytes(pair.key.read_bytes())

    install(certificates.server)
    tls = ("--tls-cert", str(cert), "--tls-key", str(key), "--tls-alpn", "one,two")
    with serving(UPPER, "--bind", "tls://127.0.0.1:0", *tls) as (process, output):
        port = port_of(output[0])
        answer, first = ask_securely(port, certificates)
        assert answer == b"HELLO\n"
        install(certificates.renewed)
        process.send_signal(signal.SIGHUP)
        assert process.stdout is not None
        assert "SIGHUP: reloading certificates" in process.stdout.readline()
        while (serial := ask_securely(port, certificates)[1]) == first:
            pass  # the line is printed before the reload
        assert serial != first
        process.send_signal(signal.SIGTERM)
        assert process.wait(50) == 0


def test_limits_and_access_from_the_command_line() -> None:
    options = ("--access", "deny 127.0.0.0/8", "--log-level", "info")
    with serving(UPPER, "--bind", "tcp://127.0.0.1:0", *options) as (process, output):
        with suppress(ConnectionResetError):
            with socket.create_connection(("127.0.0.1", port_of(output[0]))) as client:
                assert client.recv(100) == b""
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=50)
    assert re.search(r"INFO refused #1 from \('127.0.0.1', \d+\): access\n", errors)


def test_a_bound_of_the_defaults_is_taken_away() -> None:
    with serving(UPPER, "--bind", "tcp://127.0.0.1:0", "--max-line", "none") as (_, output):
        with socket.create_connection(("127.0.0.1", port_of(output[0]))) as client:
            client.sendall(b"x" * 100_000 + b"\n")
            assert client.makefile("rb").readline() == b"X" * 100_000 + b"\n"


def test_a_proxy_in_front() -> None:
    options = ("--proxy-protocol", "--trusted-proxies", "127.0.0.0/8,::1", "--max-handshakes", "9")
    with serving(UPPER, "--bind", "tcp://127.0.0.1:0", *options) as (_, output):
        with socket.create_connection(("127.0.0.1", port_of(output[0]))) as client:
            client.sendall(b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 80\r\nhello\n")
            assert client.recv(100) == b"HELLO\n"


def test_with_starttls_its_address_is_that_of_cleartext(certificates: Certificates) -> None:
    cert, key = map(str, certificates.server)
    options = ["--tls-cert", cert, "--tls-key", key, "--no-implicit-tls"]
    with serving(UPPER, "--bind", "tcp://127.0.0.1:0", *options) as (process, output):
        assert output[0].startswith("everserve: listening on tcp://127.0.0.1:")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=50)
    done = everserve("run", UPPER, "--bind", "tls://127.0.0.1:0", *options)
    assert done.returncode == 2
    assert "tls://127.0.0.1:0: is TLS from the first byte" in done.stderr


def test_a_deadline_from_the_environment() -> None:
    with serving(
        UPPER, "--bind", "tcp://127.0.0.1:0", "--log-level", "info", EVERSERVE_IDLE_TIMEOUT="0.1"
    ) as (process, output):
        with socket.create_connection(("127.0.0.1", port_of(output[0]))) as client:
            assert client.recv(100) == b""
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=50)
    assert ": idle_timeout\n" in errors


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--bind", "tls://127.0.0.1:0"], "needs a certificate: --tls-cert"),
        (["--tls-key", "key.pem"], "--tls-client-ca and --tls-alpn go with --tls-cert"),
        (["--tls-cert", "/no/such/file"], "/no/such/file"),
        (["--access", "10.0.0.0/8"], "allow 10.0.0.0/8"),
        (["--overload", "drop"], "shed-idle"),
        (["--access", "allow ::1, deny 10.1.2.3/8"], "'10.1.2.3/8' (10.1.2.3/8 has host bits set)"),
        (["--trusted-proxies", "here"], "not a network: 'here'"),
        (["--proxy-protocol"], "needs trusted_proxies"),
        (["--idle-timeout", "0"], "'0': expected seconds, more than 0"),
        (["--bind", "udp://127.0.0.1:0", "--idle-timeout", "5"], "idle_timeout has no meaning for"),
    ],
)
def test_bad_usage_of_options_for_the_internet(arguments: list[str], words: str) -> None:
    done = everserve("run", UPPER, *arguments)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


# -- several handlers ----------------------------------------------------------------------------


def test_each_handler_has_its_own_addresses() -> None:
    targets = [f"{UPPER}=tcp://127.0.0.1:0", f"{UPPER_UDP}=udp://127.0.0.1:0", UPPER]
    with serving(*targets, "--bind", "tcp://localhost:0", lines=3) as (process, output):
        ports = [port_of(line) for line in output[:3]]
        for port in (ports[0], ports[2]):
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(b"hello\n")
                assert client.recv(100) == b"HELLO\n"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(20)
            client.sendto(b"hello", ("127.0.0.1", ports[1]))
            assert client.recv(100) == b"HELLO"
        process.terminate()
        output_, _ = process.communicate()
        assert output_.count("everserve: stopped: ") == 1  # one report for all
        assert process.returncode == 0


def test_two_handlers_of_one_address_are_refused() -> None:
    ended = everserve("run", UPPER, UPPER_UDP)
    assert ended.returncode == 2
    assert "two handlers for tcp://127.0.0.1:9999" in ended.stderr


def test_a_bind_that_no_handler_needs_is_refused() -> None:
    ended = everserve("run", f"{UPPER}=tcp://127.0.0.1:0", "--bind", "tcp://127.0.0.1:0")
    assert ended.returncode == 2
    assert "each handler has an address of its own" in ended.stderr


def test_a_handler_that_does_not_end_makes_status_1(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "import everserve, threading\n"
        "class Holds(everserve.StreamRequestHandler):\n"
        "    def handle(self):\n"
        "        self.wfile.write(b'x'); self.wfile.flush(); threading.Event().wait()\n"
    )
    target = f"{tmp_path}/app.py:Holds=tcp://127.0.0.1:0"
    with serving(target, "--grace", "0") as (process, output):
        with socket.create_connection(("127.0.0.1", port_of(output[0]))) as client:
            assert client.recv(1) == b"x"
            process.terminate()
            out, err = process.communicate(timeout=20)
    assert "everserve: still running: " in out
    assert "does not end: " in err
    assert process.returncode == 1
