"""Events as log lines."""

import io
import json
import logging
import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest

import everserve
from everserve.events import BackedOff, Failed, Refused, Stopped
from everserve.observe.logs import JSONFormatter, TextFormatter, configure, log_events


@pytest.fixture(autouse=True)
def _restore_logger() -> Iterator[None]:
    logger = logging.getLogger("everserve")
    before = logger.level, logger.propagate, list(logger.handlers)
    yield
    logger.level, logger.propagate, logger.handlers = before
    logger.setLevel(before[0])


class Fail(everserve.BaseRequestHandler[Any, Any]):
    def handle(self) -> None:
        raise LookupError("no such thing")


def serve_once(stream: io.StringIO, form: str) -> list[str]:
    configure(level="debug", form=form, stream=stream)
    server = everserve.TCPServer(("127.0.0.1", 0), Fail)
    end = log_events(server)
    with server.running() as address:
        with socket.create_connection(address) as client:
            assert client.recv(1) == b""
    end()
    return stream.getvalue().splitlines()


def test_text() -> None:
    lines = serve_once(io.StringIO(), "text")
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} INFO \[Fail on tcp://127\.0\.0\.1:\d+\] "
        r"serving on \('127.0.0.1', \d+\)",
        lines[0],
    )
    text = re.sub(r"\[Fail on tcp://127\.0\.0\.1:\d+\]", "[server]", "\n".join(lines))
    for word in (
        "DEBUG [server] accepted #1",
        "ERROR [server] failed #1 from",
        "INFO [server] stopped: ",
    ):
        assert word in text
    assert len(re.findall(r"^[^ ]+ [^ ]+ [A-Z]+ (?!\[server\])", text, re.MULTILINE)) == 0
    assert text.count("LookupError: no such thing") == 1


def test_json() -> None:
    lines = [json.loads(line) for line in serve_once(io.StringIO(), "json")]
    by_event = {line.get("event", line["level"]): line for line in lines}
    assert {"Serving", "Accepted", "Opened", "Failed", "Draining", "Stopped"} <= set(by_event)
    assert by_event["Accepted"]["connection"] == 1
    assert by_event["Accepted"]["peer"][0] == "127.0.0.1"
    failed = by_event["Failed"]
    assert (failed["level"], failed["connection"], failed["peer"][0]) == ("ERROR", 1, "127.0.0.1")
    assert "\nLookupError: no such thing" in failed["traceback"]
    assert {line["logger"] for line in lines} == {"everserve"}
    assert {line["server"].split(":")[0] for line in lines} == {"Fail on tcp"}
    assert re.fullmatch(r"\d+ finished, 0 cut in \d+\.\d\d s", by_event["Stopped"]["report"])
    assert by_event["Draining"]["grace"] == 5.0


def test_values_without_a_form_in_json() -> None:
    record = logging.makeLogRecord({"msg": "x", "event": BackedOff(OSError(24, "many"), 0.005, 2)})
    line = json.loads(JSONFormatter().format(record))
    assert line["error"] == "OSError(24, 'many')"
    record = logging.makeLogRecord({"msg": "x", "event": Stopped(everserve.StopReport())})
    assert json.loads(JSONFormatter().format(record))["report"].startswith("0 finished")


def test_what_the_server_logs_itself_is_not_logged_twice(caplog: pytest.LogCaptureFixture) -> None:
    class Server:
        def subscribe(self, subscriber: Any) -> Any:
            subscriber(BackedOff(OSError(24, "many"), 0.005, 2))
            return lambda: None

    log_events(Server())
    assert not caplog.records


def test_an_event_below_the_level_is_not_logged() -> None:
    stream = io.StringIO()
    configure(level=logging.WARNING, stream=stream)
    server = everserve.TCPServer(("127.0.0.1", 0), everserve.BaseRequestHandler)
    log_events(server)
    with server.running():
        pass
    assert stream.getvalue() == ""


def test_unknown_arguments() -> None:
    with pytest.raises(ValueError, match="log form 'xml': there are text, json"):
        configure(form="xml")
    with pytest.raises(ValueError, match="Unknown level"):
        configure(level="loud")


# --- a peer cannot write a line ----------------------------------------------------------------------

FORGED = "x\n2026-11-26 14:00:00.000 INFO accepted #7 from ('10.0.0.1', 22)\x1b[2J\u2028\u202e"


class Forge(everserve.BaseRequestHandler[Any, Any]):
    """Fails as a handler does that puts what the peer has sent into an exception."""

    def handle(self) -> None:
        raise ValueError(FORGED)


def fail_from(address: Any, stream: io.StringIO, formatter: logging.Formatter | None) -> list[str]:
    """The lines of a request from ``address`` that failed."""
    handler = configure(level="debug", stream=stream)
    if formatter is not None:
        handler.setFormatter(formatter)
    with everserve.TCPServer(("127.0.0.1", 0), Forge) as server:
        server.subscribe(lambda event: None)
        end = log_events(server)
        server.shutdown_request = lambda request: None  # type: ignore[method-assign]
        server._everserve.flow.admit(server, object(), address)
        end()
    return stream.getvalue().splitlines()


@pytest.mark.parametrize("address", [FORGED, FORGED.encode(), (FORGED, 4711)])
@pytest.mark.parametrize("formatter", [None, logging.Formatter("%(asctime)s %(message)s")])
def test_a_peer_cannot_write_a_line(address: Any, formatter: logging.Formatter | None) -> None:
    lines = fail_from(address, io.StringIO(), formatter)
    records = [line for line in lines if not line.startswith("  | ")]
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", line) for line in records)
    assert not any("14:00:00" in line[:30] for line in records)
    assert len(records) == 3  # accepted, opened, failed
    assert all(line.replace("\t", "").isprintable() for line in lines)
    assert any("  | ValueError: x" in line for line in lines)


def test_a_refusal_is_one_line() -> None:
    event = Refused(1, FORGED, "proxy_header", ValueError(FORGED))
    assert str(event).isprintable()
    assert str(Failed(1, FORGED, ValueError(FORGED), peer_gone=False)).isprintable()


def test_records_of_the_program_are_marked_too() -> None:
    record = logging.makeLogRecord({"msg": "first\nsecond\r\tthird", "levelname": "INFO"})
    first, second = TextFormatter().format(record).split("\n")
    assert first.endswith("INFO first")
    assert second == "  | second\\r\tthird"


def test_json_has_what_a_program_adds() -> None:
    record = logging.makeLogRecord({"name": "app", "msg": "x", "user": 5, "level": "own"})
    record.stack_info = "Stack:\n  here"
    line = json.loads(JSONFormatter().format(record))
    assert (line["logger"], line["user"], line["stack"]) == ("app", 5, "Stack:\n  here")
    assert line["level"] == record.levelname
    record = logging.makeLogRecord({"msg": "x", "odd": {(1, 2): object}})
    assert json.loads(JSONFormatter().format(record))["odd"].startswith("{(1, 2)")
