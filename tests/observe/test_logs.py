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
from everserve.events import BackedOff, Stopped
from everserve.observe.logs import JSONFormatter, configure, log_events


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
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} INFO serving on \('127.0.0.1', \d+\)", lines[0]
    )
    text = "\n".join(lines)
    for word in ("accepted #1", "opened #1", "ERROR request from", "INFO stopped: "):
        assert word in text
    assert text.count("LookupError: no such thing") == 1


def test_json() -> None:
    lines = [json.loads(line) for line in serve_once(io.StringIO(), "json")]
    by_event = {line.get("event", line["level"]): line for line in lines}
    assert {"Serving", "Accepted", "Opened", "ERROR", "Draining", "Stopped"} <= set(by_event)
    assert by_event["Accepted"]["connection"] == 1
    assert by_event["Accepted"]["peer"][0] == "127.0.0.1"
    assert "LookupError: no such thing" in by_event["ERROR"]["traceback"]
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
