"""Options in a file: below the environment and the command line, by the same names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from tests.cli.test_commands import UPPER, port_of, serving

from everserve.cli.commands import run

WORDS = """
target = "app:Handler"
bind = ["tcp://127.0.0.1:1", "unix:s"]
concurrency = "threads"
grace = 30
max_connections = 100
coalesce_writes = false
idle_timeout = "none"
trusted_proxies = ["10.0.0.0/8", "::1"]
tls_alpn = ["h2", "http/1.1"]
socket_mode = "0o660"
umask = 0o027
workers = 2
worker_timeout = "none"
replace = true
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def values(*arguments: str) -> dict[str, Any]:
    """The parameters of a command line."""
    return run.make_context("run", [*arguments]).params


def fault(*arguments: str) -> str:
    with pytest.raises(click.UsageError) as raised:
        values(*arguments)
    return raised.value.format_message()


def test_each_value_is_that_of_its_option(folder: Path) -> None:
    (folder / "server.toml").write_text(WORDS)
    found = values("--config", "server.toml")
    assert found["targets"] == ("app:Handler",)
    assert found["bind"] == ("tcp://127.0.0.1:1", "unix:s")
    assert (found["concurrency"], found["grace"]) == ("threads", 30.0)
    assert (found["max_connections"], found["coalesce_writes"]) == (100, False)
    assert found["idle_timeout"] == values("x:Y", "--idle-timeout", "none")["idle_timeout"]
    assert found["trusted_proxies"].texts == ("10.0.0.0/8", "::1")
    assert found["tls_alpn"] == "h2,http/1.1"
    assert (found["socket_mode"], found["umask"]) == (0o660, 0o027)
    assert (found["workers"], found["replace"], found["log_level"]) == (2, True, "warning")


def test_the_order(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line over the environment over the file."""
    (folder / "server.toml").write_text(WORDS)
    monkeypatch.setenv("EVERSERVE_RUN_GRACE", "20")
    monkeypatch.setattr(run, "context_settings", run.context_settings | {})
    context = run.make_context(
        "run", ["--config", "server.toml"], auto_envvar_prefix="EVERSERVE_RUN"
    )
    assert context.params["grace"] == 20.0
    context = run.make_context(
        "run",
        ["--config", "server.toml", "--grace", "10", "-b", "tcp://*:2", "a:B"],
        auto_envvar_prefix="EVERSERVE_RUN",
    )
    assert context.params["grace"] == 10.0
    assert context.params["bind"] == ("tcp://*:2",)
    assert context.params["targets"] == ("a:B",)
    assert context.params["max_connections"] == 100


def test_a_project_has_a_table(folder: Path) -> None:
    project = folder / "pyproject.toml"
    project.write_text("[project]\nname = 'x'\n")
    assert values("a:B")["grace"] == 5.0
    assert fault("--config", "pyproject.toml") == "pyproject.toml has no table [tool.everserve]"
    project.write_text("[tool.everserve]\ntarget = 'x:Y'\ngrace = 7\n")
    assert values()["grace"] == values("--config", "pyproject.toml")["grace"] == 7.0
    (folder / "server.toml").write_text("grace = 8")
    assert values("a:B", "--config", "server.toml")["grace"] == 8.0
    project.write_text("[tool]\neverserve = 3\n")
    assert fault("a:B") == "pyproject.toml: [tool.everserve] is no table"
    project.write_text("broken")
    assert values("a:B")["grace"] == 5.0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("max_conections = 5", "no option 'max_conections'; did you mean 'max_connections'?"),
        ("max-connections = 5", "no option 'max-connections'; did you mean 'max_connections'?"),
        ("config = 'other.toml'", "there is no option 'config'"),
        ("max_connections = 0", "server.toml: max_connections: 0: expected a number from 1 up"),
        ("max_connections = true", "max_connections = True: expected no true"),
        ("coalesce_writes = 1", "coalesce_writes = 1: expected true or false"),
        ("grace = 'soon'", "server.toml: grace: 'soon'"),
        ("concurrency = 'magic'", "'magic'"),
        ("[bind]\na = 1", "expected no true, no false and no table"),
        ("umask = '9'", "expected permission bits"),
        ("grace = ", "cannot read server.toml: "),
        ("grace = '\xff'", "cannot read server.toml: "),
        (None, "cannot read server.toml: No such file"),
    ],
)
def test_a_fault_is_one_line_that_names_the_file(
    folder: Path, text: str | None, words: str
) -> None:
    if text is not None:
        (folder / "server.toml").write_bytes(text.encode("latin-1"))
    found = fault("a:B", "--config", "server.toml")
    assert words in found
    assert "server.toml" in found
    assert "\n" not in found


def test_a_server_with_a_file_and_the_environment(folder: Path) -> None:
    (folder / "server.toml").write_text(f"target = {UPPER!r}\nbind = 'tcp://127.0.0.1:0'\n")
    with serving(EVERSERVE_CONFIG="server.toml", EVERSERVE_LOG_LEVEL="info") as (_, output):
        assert port_of(output[0])
