"""The tables of the pages have exactly the names of the code, and its defaults."""

from __future__ import annotations

import ast
import configparser
import dataclasses
import inspect
import re
import socketserver
from pathlib import Path
from typing import Any

import pytest
from tests.docs.blocks import DOCS, ROOT, table_of

import everserve
from everserve import events, fibers
from everserve.admission.control import POLICIES
from everserve.admission.peer import Peer
from everserve.cli.commands import run
from everserve.combos import CONCURRENCY
from everserve.lifecycle.state import ServerState
from everserve.options import OPTIONS
from everserve.process.supervisor import SIGNALS
from everserve.server.stop import StopReport
from everserve.sockets.tls import TLS

SERVERS = [
    value
    for name in everserve.__all__
    if isinstance(value := getattr(everserve, name), type)
    and issubclass(value, everserve.TCPServer)
]


def words(cell: str) -> list[str]:
    """The texts in backticks."""
    return re.findall(r"`([^`]*)`", cell)


def column(page: str, head: str, number: int = 0) -> list[str]:
    """The words of a column, from top to bottom."""
    return [word for row in table_of(page, head) for word in words(row[number])]


WITHOUT_ONE_DEFAULT = (
    "request_queue_size",
    "trusted_proxies",
    "admission_steps",
    "idle_timeout",  # as does "overload": sessions have their own
    "overload",
    "coalesce_writes",  # depends on the strategy, as does the next
    "daemon_threads",
)
OPTION_TABLE = table_of("addresses-and-options.md", "| option |")


def test_the_table_has_all_options_and_no_others() -> None:
    assert sorted(words(row[0])[0] for row in OPTION_TABLE) == sorted(OPTIONS)


@pytest.mark.parametrize("row", OPTION_TABLE, ids=lambda row: words(row[0])[0])
def test_an_option_has_its_default(row: list[str]) -> None:
    (name,), default = words(row[0]), words(row[2])
    if default:
        value = ast.literal_eval(default[0])
        assert all(getattr(server, name) == value for server in SERVERS if hasattr(server, name))
    else:
        assert name in WITHOUT_ONE_DEFAULT


@pytest.mark.parametrize("row", OPTION_TABLE, ids=lambda row: words(row[0])[0])
def test_an_option_states_when_it_is_read(row: list[str]) -> None:
    assert row[4] in ("bind", "serve", "next")


@pytest.mark.parametrize(
    ("page", "head", "owner"),
    [
        ("internet.md", "| attribute | default | bounds", everserve.TCPServer),
        ("internet.md", "| attribute | default | what it catches", everserve.TCPServer),
        ("proxy-protocol.md", "| option | default |", everserve.TCPServer),
        ("fibers.md", "| class attribute of the handler", everserve.StreamRequestHandler),
    ],
)
def test_class_attributes_and_their_defaults(page: str, head: str, owner: type) -> None:
    for row in table_of(page, head):
        home = everserve.StreamRequestHandler if "(of the handler)" in row[0] else owner
        assert hasattr(home, words(row[0])[0])
        for default in words(row[1]):
            assert getattr(home, words(row[0])[0]) == ast.literal_eval(default)


def test_the_attributes_of_the_strategies() -> None:
    mixins = [everserve.ThreadPoolMixIn, everserve.ThreadingMixIn, everserve.FiberMixIn]
    for name, of, default, _ in table_of("concurrency.md", "| attribute | of |"):
        owners = [getattr(everserve, word) for word in words(of)] or mixins
        for owner in owners:
            assert getattr(owner, words(name)[0]) == ast.literal_eval(words(default)[0])


def test_the_strategies() -> None:
    for head in ("| word | a request runs", "| word | mix-in"):
        named = [words(row[0])[0] for row in table_of("concurrency.md", head)]
        assert sorted(named) == sorted(CONCURRENCY)
    for name in column("concurrency.md", "| word | mix-in", 1):
        assert name in everserve.__all__
    ready_made = column("concurrency.md", "| word | mix-in", 2)
    assert sorted(ready_made) == sorted(server.__name__ for server in SERVERS)


def test_the_arguments_about_workers() -> None:
    parameters = inspect.signature(everserve.serve).parameters
    for name, default, _ in table_of("workers.md", "| argument of"):
        assert parameters[words(name)[0]].default == ast.literal_eval(words(default)[0])


def test_the_signals_of_a_supervisor() -> None:
    rows = table_of("workers.md", "| signal |")
    named = [name for row in rows for name in row[0].split(", ")]
    assert sorted(named) == sorted(number.name for number in SIGNALS)


def test_the_policies() -> None:
    named = [words(row[0])[0].strip('"') for row in table_of("internet.md", "| `overload` | above")]
    assert named[:-1] == list(POLICIES)


def test_the_reasons_to_cancel() -> None:
    named = column("internet.md", "| `self.cancelled` |")
    assert named == ["None", *map(str, everserve.CancelReason)]


def test_the_events_with_their_fields_and_levels() -> None:
    rows = table_of("life-cycle.md", "| event |")
    kinds = set(events.__all__) - {"ServerEvent", "Subscriber"}
    assert {words(row[0])[0] for row in rows} == kinds
    for row in rows:
        kind = getattr(events, words(row[0])[0])
        assert words(row[1]) == [
            field.name
            for field in dataclasses.fields(kind)
            if field.name not in ("server", "worker")
        ]
        assert row[2].upper() == events.logging.getLevelName(kind.level)


def test_the_states_and_the_report() -> None:
    assert column("life-cycle.md", "| state |") == [state.name for state in ServerState]
    fields = [field.name for field in dataclasses.fields(StopReport)]
    assert column("life-cycle.md", "| field |") == fields


def test_the_arguments_of_tls() -> None:
    parameters = inspect.signature(TLS).parameters
    rows = table_of("tls.md", "| argument |")
    assert sorted(words(row[0])[0] for row in rows) == sorted(parameters)
    for row in rows:
        default: Any = parameters[words(row[0])[0]].default
        assert [ast.literal_eval(word) for word in words(row[1])] == (
            [] if default is inspect.Parameter.empty else [default]
        )


def test_the_fields_of_the_peer() -> None:
    fields = {field.name for field in dataclasses.fields(Peer)}
    assert set(column("internet.md", "| field |")) == fields


def test_the_options_of_the_command_line() -> None:
    """The options outside the options' table have their own table."""
    own = {param.opts[-1]: param for param in run.params if param.name not in OPTIONS}
    own.pop("targets")
    rows = table_of("command-line.md", "| option |")
    assert sorted(word for row in rows for word in words(row[0])) == sorted(own)
    for row in rows:
        for default in words(row[1]):
            value: Any = own[words(row[0])[0]].default
            assert default == str(value[0] if isinstance(value, list | tuple) else value)


def test_the_tools_of_fibers() -> None:
    page = (DOCS / "fibers.md").read_text()
    errors = {"FiberExit", "FiberTimeout", "HubError"}
    tools = {re.split(r"\W", words(row[0])[0])[0] for row in table_of("fibers.md", "| name | does")}
    assert tools | errors == set(fibers.__all__)
    assert all(f"`{error}`" in page for error in errors)


def test_the_names_of_the_standard_library() -> None:
    page = (DOCS / "drop-in.md").read_text()
    assert set(socketserver.__all__) <= set(everserve.__all__)
    for row in table_of("drop-in.md", "| | |")[:3]:
        for name in words(row[1]):
            assert name in everserve.__all__ or hasattr(everserve.BaseRequestHandler, name)
    assert all(f"`{name}`" in page for name in socketserver.__all__ if name.startswith("Base"))


def test_each_repaired_defect_has_its_test() -> None:
    page = (DOCS / "drop-in.md").read_text()
    listed = {int(number) for number in re.findall(r"^(\d+)\. ", page, re.MULTILINE)}
    tests = (ROOT / "tests" / "defects").glob("test_*_*.py")
    numbers = {int(found[1]) for test in tests if (found := re.match(r"test_(\d+)_", test.name))}
    assert listed == numbers


SOURCE = Path(everserve.__file__).parent
ROOMS = {f"{room.name}/" for room in SOURCE.iterdir() if (room / "__init__.py").exists()} | {
    file.name for file in SOURCE.glob("*.py") if not file.name.startswith("__")
}


@pytest.mark.parametrize("page", ["how-it-works.md", "../CONTRIBUTING.md"])
def test_the_rooms_are_those_of_the_source(page: str) -> None:
    assert sorted(column(page, "| room |")) == sorted(ROOMS)


CONTRACTS = configparser.ConfigParser()
CONTRACTS.read(ROOT / ".importlinter")
LAYERS = CONTRACTS["importlinter:contract:house"]["layers"].split("\n")[::-1]


@pytest.mark.parametrize("page", ["how-it-works.md", "../CONTRIBUTING.md"])
def test_the_rooms_are_in_the_order_of_the_contract_for_imports(page: str) -> None:
    """A layer with several rooms has them in any order."""
    rooms = [room.removesuffix(".py").rstrip("/") for room in column(page, "| room |")]
    places = [place_of(room) for room in rooms]
    assert places == sorted(places)


def place_of(room: str) -> int:
    (place,) = (n for n, layer in enumerate(LAYERS) if room in re.findall(r"\w+", layer))
    return place


def test_the_parts_of_a_group() -> None:
    group = everserve.ServerGroup([])
    for name in column("addresses-and-options.md", "| `ServerGroup` |"):
        if not name.startswith("with "):
            assert hasattr(group, re.split(r"\W", name)[0])
