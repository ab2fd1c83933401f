"""The options at SIGHUP: the file as it is then, for what can change while the listeners stay."""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from tests.certificates import Certificates
from tests.cli.test_commands import UPPER
from tests.clients import LIMIT
from tests.process.supervised import supervised, until

from everserve.cli.commands import run
from everserve.cli.operation import _Service
from everserve.cli.plan import Plan, configure_log, prepare
from everserve.cli.renewal import Renewal
from everserve.errors import OptionError
from everserve.process.identity import Identity

OF_RUN = ("grace", "pid", "reload")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("everserve.cli.plan.configure_log", lambda *_: None)
    return tmp_path


def renewal(*words: str, identity: Identity | None = None) -> tuple[Plan, Renewal]:
    """The plan of a command line, and what reads it again."""
    ctx = run.make_context("run", ["--config", "server.toml", *words])
    given = {name: value for name, value in ctx.params.items() if name not in OF_RUN}
    with ctx:
        plan = prepare(**given | {"chdir": None})
    if identity is not None:
        plan = Plan(plan.pairs, plan.concurrency, plan.options, identity, plan.workforce, False)
    return plan, Renewal(ctx, plan)


def write(**options: object) -> None:
    """The file of options; strings are written as they are."""
    lines = {"target": UPPER, "workers": 2} | options
    text = "\n".join(f"{name} = {value!r}" for name, value in lines.items())
    Path("server.toml").write_text(text)


@pytest.mark.usefixtures("folder")
def test_what_has_not_changed_is_the_same_plan() -> None:
    write(max_connections=10)
    plan, again = renewal()
    assert again.read() is plan


@pytest.mark.usefixtures("folder")
def test_settings_and_handlers_are_read_anew_below_the_command_line() -> None:
    write(max_connections=10, idle_timeout=5)
    _, again = renewal("--idle-timeout", "7")
    write(target="other:Handler", max_connections=20, idle_timeout="none")
    plan = again.read()
    assert plan.options == {"max_connections": 20, "idle_timeout": 7.0}
    assert plan.pairs == [("other:Handler", "tcp://127.0.0.1:9999")]


def test_the_file_is_found_from_another_folder(folder: Path) -> None:
    write(max_connections=10)
    _, again = renewal("--chdir", str(folder))
    write(max_connections=20)
    os.chdir("/")
    assert again.read().options == {"max_connections": 20}
    assert os.getcwd() == "/"


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"max_conections": 3}, "server.toml: there is no option 'max_conections'"),
        ({"max_connections": "many"}, "server.toml: max_connections"),
        ({"bind": "tcp://127.0.0.1:1"}, "other addresses, tcp://127.0.0.1:1: they are bound"),
    ],
)
def test_what_cannot_be_used_is_an_error(change: dict[str, object], words: str) -> None:
    write()
    _, again = renewal()
    write(**change)
    with pytest.raises(OptionError, match=words):
        again.read()


@pytest.mark.usefixtures("folder")
def test_what_belongs_to_the_start_stays(caplog: pytest.LogCaptureFixture) -> None:
    write()
    before, again = renewal()
    write(workers=4, grace=9, concurrency="threads", request_queue_size=7, max_workers=3)
    with caplog.at_level(logging.WARNING):
        plan = again.read()
    assert plan.concurrency == before.concurrency
    assert caplog.messages == [
        "these options stay until the next start: grace, concurrency, workers, request_queue_size"
    ]


def test_a_certificate_of_the_same_files_is_that_which_is_loaded(folder: Path) -> None:
    cert, key = map(str, Certificates(folder).server)
    write(tls_cert=cert, tls_key=key)
    before, again = renewal()
    write(tls_cert=cert, tls_key=key, max_connections=9)
    assert again.read().options == {"max_connections": 9, "tls": before.options["tls"]}
    write(tls_cert=cert, tls_key=key, tls_alpn="h2")
    assert again.read().options["tls"] is not before.options["tls"]


@pytest.mark.usefixtures("folder")
def test_a_file_that_only_root_may_read_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write(max_connections=10)
    before, again = renewal(identity=Identity.of(str(os.getuid()), None))
    write(max_connections=20)
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert again.read() is before
    assert "options not read anew" in caplog.text


@pytest.mark.usefixtures("folder")
def test_the_first_template_reads_nothing_anew() -> None:
    write(bind="tcp://127.0.0.1:0")
    plan, again = renewal()
    write(bind="tcp://127.0.0.1:0", max_conections=3)
    service = _Service(plan)
    with service.bind(None) as bound:
        assert service.load(bound).addresses == bound.addresses
        service.renewal = again
        with pytest.raises(OptionError, match="max_conections"):
            service.load(bound)


@pytest.fixture
def _root_log() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.usefixtures("_root_log")
def test_the_log_is_configured_again_and_not_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("warnings.showwarning", None)
    before = len(logging.getLogger().handlers)
    with click.Context(run):
        configure_log("info", "text", None)
        configure_log("warning", "json", None)
    assert len(logging.getLogger().handlers) == before + 1
    assert logging.getLogger().level == logging.WARNING


SHOUT = """
import everserve

class Answer(everserve.LineRequestHandler):
    @staticmethod
    def handle_message(line):
        return line.upper() + b"!"
"""

COUNT = """
import everserve

class Answer(everserve.DatagramSessionHandler):
    def handle(self):
        for number, datagram in enumerate(self.datagrams):
            self.send(b"%d" % number)
"""


def test_workers_may_have_an_executor(tmp_path: Path) -> None:
    with supervised(tmp_path, "--executor", "threads:1", workers=1, handler=SHOUT) as server:
        assert server.ask() == ["WHO!"]
        assert server.end() == 0


def test_workers_may_have_sessions_of_datagrams(tmp_path: Path) -> None:
    with supervised(tmp_path, "--bind", "udp://127.0.0.1:0", workers=1, handler=COUNT) as server:
        with socket.socket(type=socket.SOCK_DGRAM) as client:
            client.settimeout(LIMIT)
            client.connect(server.address)
            for number in range(3):
                client.send(b"datagram")
                assert client.recv(10) == b"%d" % number
        assert server.end() == 0


def test_new_workers_have_the_options_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text("max_connections = 100\n")
    with supervised(tmp_path, "--config", str(file)) as server:
        assert server.ask()[2] == "50"
        file.write_text("max_connections = 40\n")
        server.send(signal.SIGHUP)
        until(lambda: server.ask()[2] == "20")
        file.write_text("max_conections = 30\n")
        server.send(signal.SIGHUP)
        line = server.await_line("the old workers go on", errors=True)
        assert "server.toml: there is no option 'max_conections'" in line
        assert server.ask()[2] == "20"
        assert server.end() == 0
