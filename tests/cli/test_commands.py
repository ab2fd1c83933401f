"""``everserve run`` as a user types it."""

import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

import pytest
from tests.certificates import Certificates, Pair

from everserve import engine
from everserve.cli.reporting import explain
from everserve.options import GROUPS, OPTIONS

ROOT = Path(__file__).parents[2]
UPPER = str(ROOT / "examples" / "upper_tcp.py") + ":Upper"
UPPER_UDP = str(ROOT / "examples" / "upper_udp.py") + ":Upper"


FIRST_LINE = (
    rf"everserve: version {re.escape(version('everserve'))} \({engine} engine, \w+ [\w.+]+\)\n"
)


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
        assert re.fullmatch(FIRST_LINE, process.stdout.readline())
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
            f"unix:{tmp_path}": "a file that is no socket is there: remove it",
            f"unix:{tmp_path}/{'x' * 120}": "at most 107 bytes",
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
    assert re.search(r"INFO \[.*\] refused #1 from \('127.0.0.1', \d+\): access\n", errors)


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
        (["--tls-key", "key.pem"], "--tls-alpn go with --tls-cert"),
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


# --- mistakes, and outputs that fail ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["tcp://[::1]:80"],
            f"is an address, where a handler is expected: write {UPPER}=tcp://[::1]:80,",
        ),
        (["127.0.0.1:8000"], "or --bind 127.0.0.1:8000"),
        (["--bind", "0.0.0.0:8000"], "did you mean 'tcp://0.0.0.0:8000'?"),
        (["--bind", "udp://127.0.0.1:0"], "Upper is for streams: for datagrams inherit"),
        (["--grace", "soon"], "--grace"),
        (["--log-config", "no.json"], "cannot configure the log from 'no.json': No such file"),
        (["--log-config", "no.json", "--log-level", "info"], "leave out --log-level"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], words: str) -> None:
    done = everserve("run", UPPER, *arguments)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert words in done.stderr


def test_short_names() -> None:
    assert everserve("-V").stdout == everserve("--version").stdout
    assert re.fullmatch(FIRST_LINE.replace("everserve: ", "everserve, "), everserve("-V").stdout)
    assert everserve("run", "-h").stdout == everserve("run", "--help").stdout
    with serving(UPPER, "-b", "tcp://127.0.0.1:0") as (_, output):
        assert port_of(output[0])


def test_the_help_has_all_options_in_groups_with_their_defaults() -> None:
    text = everserve("run", "--help", COLUMNS="200").stdout
    sections = re.split(r"^(\w+):\n", text, flags=re.MULTILINE)[1:]
    groups = dict(zip(sections[::2], sections[1::2], strict=True))
    assert list(groups) == [*GROUPS, "Help"]
    for option in OPTIONS.values():
        if option.is_text:
            assert f"--{option.name.replace('_', '-')} " in groups[option.group]
    assert "--bind" in groups["Network"]
    assert "--tls-cert" in groups["TLS"]
    assert "--log-level" in groups["Logging"]
    assert re.search(r"--max-workers VALUE .*\[default: 64\]", groups["Requests"])
    assert re.search(r"(?s)--trusted-proxies VALUE .*\[default: none\]", groups["Network"])


def test_a_port_without_permission_says_what_to_do() -> None:
    error = PermissionError(errno.EACCES, os.strerror(errno.EACCES), "127.0.0.1:80")
    assert explain(error).startswith("cannot listen on 127.0.0.1:80: no permission: a port below")
    error.filename = "/run/my.sock"
    assert explain(error) == "cannot listen on /run/my.sock: no permission"


@pytest.mark.parametrize("stdout", ["full", "gone", "closed"])
def test_a_broken_stdout_stops_nothing(stdout: str) -> None:
    command = [sys.executable, "-m", "everserve", "run", UPPER, "-b", "tcp://127.0.0.1:0"]
    reader, writer = os.pipe()
    os.close(reader)
    if stdout == "full":
        os.close(writer)
        writer = os.open("/dev/full", os.O_WRONLY)
    if stdout == "closed":
        command = ["sh", "-c", 'exec "$@" >&-', "sh", *command]
    command += ["--log-level", "info"]
    with subprocess.Popen(command, stdout=writer, stderr=subprocess.PIPE, text=True) as process:
        os.close(writer)
        assert process.stderr is not None
        lines = [process.stderr.readline() for _ in range(1 if stdout == "closed" else 2)]
        process.send_signal(signal.SIGTERM)
        _, rest = process.communicate(timeout=50)
    assert process.returncode == 0, rest
    assert "serving on" in lines[0]
    complaints = [
        line for line in [*lines, *rest.splitlines()] if "stdout cannot be written" in line
    ]
    assert len(complaints) == (0 if stdout == "closed" else 1)


NOISY = """import everserve, logging

class Noisy(everserve.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            logging.getLogger("app").warning("x" * 100_000)
            self.wfile.write(line)
"""


@pytest.mark.parametrize("concurrency", ["fibers", "threads", "forks"])
def test_a_stderr_that_no_one_reads_stops_nothing(tmp_path: Path, concurrency: str) -> None:
    file = tmp_path / "noisy.py"
    file.write_text(NOISY)
    options = ("-b", "tcp://127.0.0.1:0", "--concurrency", concurrency)
    with serving(f"{file}:Noisy", *options) as (process, output):
        with socket.create_connection(("127.0.0.1", port_of(output[0])), 30) as client:
            answers = client.makefile("rb")
            for _ in range(30):  # 3 MB: more than the pipe and the lines that are kept
                client.sendall(b"hello\n")
                assert answers.readline() == b"hello\n"
            process.send_signal(signal.SIGTERM)
        assert process.wait(50) == 0


def test_the_programs_own_records_have_the_form_of_the_log(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(
        "import everserve, logging, warnings\n"
        "logging.getLogger('app').error('first\\nsecond')\n"
        "class S(everserve.TCPServer):\n    max_conections = 5\n"
        "class H(everserve.BaseRequestHandler):\n    def handle(self): pass\n"
    )
    with serving(f"{file}:H", "-b", "tcp://127.0.0.1:0", "--log-format", "json") as (process, _):
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=50)
    own, warning = map(json.loads, errors.splitlines())
    assert (own["logger"], own["level"], own["message"]) == ("app", "ERROR", "first\nsecond")
    assert warning["logger"] == "py.warnings"
    assert "MistakeWarning: S.max_conections is no option: did you mean" in warning["message"]
    assert f"({file}, line 3)" in warning["message"]


LOG_CONFIG = {
    "formatters": {"json": {"()": "everserve.observe.logs.JSONFormatter"}},
    "handlers": {"file": {"class": "logging.FileHandler", "formatter": "json"}},
    "root": {"level": "INFO", "handlers": ["file"]},
}


def test_the_log_as_a_file_says(tmp_path: Path) -> None:
    config, log = tmp_path / "log.json", tmp_path / "log"
    LOG_CONFIG["handlers"]["file"]["filename"] = str(log)  # type: ignore[index]
    config.write_text(json.dumps(LOG_CONFIG))
    options = ("-b", "tcp://127.0.0.1:0", "--log-config", str(config))
    with serving(UPPER, *options) as (process, _):
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=50)
    assert errors == ""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["event"] for line in lines] == ["Serving", "Draining", "Stopped"]


def test_the_password_of_a_key(certificates: Certificates, tmp_path: Path) -> None:
    cert, key = certificates.server
    encrypted, password = tmp_path / "key.pem", tmp_path / "password"
    subprocess.run(
        ["openssl", "pkey", "-in", key, "-aes256", "-passout", "pass:secret", "-out", encrypted],
        check=True,
        timeout=50,
    )
    tls = ("-b", "tls://127.0.0.1:0", "--tls-cert", str(cert), "--tls-key", str(encrypted))
    done = everserve("run", UPPER, *tls)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "the key is encrypted, give its password= (--tls-password-file)" in done.stderr
    password.write_text("secret\n")
    with serving(UPPER, *tls, "--tls-password-file", str(password)) as (_, output):
        answer, _ = ask_securely(port_of(output[0]), certificates)
        assert answer == b"HELLO\n"


def test_ctrl_c_before_it_serves_is_quiet(tmp_path: Path) -> None:
    """In the imports, by a module that is imported early, and in the user's own module."""
    (tmp_path / "greenlet.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n"
    )
    done = everserve("run", UPPER, PYTHONPATH=f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
    file = tmp_path / "app.py"
    file.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    done = everserve("run", f"{file}:H")
    assert (done.returncode, done.stdout, done.stderr.strip()) == (130, "", "")


def test_a_slow_engine_is_one_line_that_says_how_to_change_it(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['everserve.fibers._hub'] = None\n"
        "from everserve.fibers.engines import engine, explain_slow_engine\n"
        "print(engine, explain_slow_engine())"
    )
    for wanted, words in (("auto", "python the engine in Python runs"), ("python", "python None")):
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=50,
            check=True,
            env=os.environ | {"EVERSERVE_ENGINE": wanted},
        )
        assert done.stdout.startswith(words)
        assert done.stdout.count("\n") == 1


def test_too_few_descriptors_are_one_line_at_the_start() -> None:
    command = ["sh", "-c", 'ulimit -n 200; exec "$@"', "sh", sys.executable, "-m", "everserve"]
    command += ["run", UPPER, "-b", "tcp://127.0.0.1:0", "--max-connections", "300"]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        process.terminate()
        _, rest = process.communicate(timeout=50)
    assert "300 in all needs 332 descriptors, and this process may have 200" in line
    assert (process.returncode, rest) == (0, "")


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
