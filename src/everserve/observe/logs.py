"""Events as log lines, text or JSON.

``log_events`` subscribes to a server. The server itself logs failures and warnings, even without a
subscriber; the formatters here apply to these lines too.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import logging.config
import tomllib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Protocol

from everserve.errors import OptionError
from everserve.escaping import escaped, marked
from everserve.events import ServerEvent, Subscriber
from everserve.server.served import Served

__all__ = ["JSONFormatter", "TextFormatter", "configure", "configure_from", "log_events"]

logger = logging.getLogger("everserve")


class _Subscribable(Protocol):
    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]: ...


class SupportsWrite(Protocol):
    """A stream of text: a file, or a ``LineWriter``."""

    def write(self, text: str, /) -> object: ...
    def flush(self) -> object: ...


def log_events(server: _Subscribable) -> Callable[[], None]:
    """Log every event of ``server`` on the logger ``everserve``. Returns a function that ends this."""
    if isinstance(server, Served):
        return Served.subscribe(server, _log)  # a subclass may have its own
    return server.subscribe(_log)


def _log(event: ServerEvent) -> None:
    if not event.logged and logger.isEnabledFor(event.level):
        logger.log(event.level, "%s", event, extra={"event": event})


def configure(
    *,
    level: int | str = logging.INFO,
    form: str = "text",
    stream: SupportsWrite | None = None,
    name: str = "everserve",
) -> logging.Handler:
    """Send the log of everserve to ``stream`` (default: stderr), as ``"text"`` or ``"json"`` lines.

    ``name`` is the logger; ``""``, the root, has the records of the whole program in this form. Returns
    the handler; remove it from the logger to end this. Raises ``ValueError`` for an unknown form or
    level.
    """
    formatters = {"text": TextFormatter, "json": JSONFormatter}
    if form not in formatters:
        raise ValueError(f"log form {form!r}: there are {', '.join(formatters)}")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatters[form]())
    chosen = logging.getLogger(name)
    chosen.setLevel(level.upper() if isinstance(level, str) else level)
    chosen.addHandler(handler)
    if name:
        chosen.propagate = False
    return handler


def configure_from(path: str) -> None:
    """Configure ``logging`` from a file: ``dictConfig`` of ``.json`` or ``.toml``, or ``fileConfig``.

    A formatter of everserve is ``{"()": "everserve.observe.logs.JSONFormatter"}``. Raises
    ``OptionError``, which names the file.
    """
    try:
        if path.endswith((".json", ".toml")):
            with open(path, "rb") as file:
                settings = json.load(file) if path.endswith(".json") else tomllib.load(file)
            logging.config.dictConfig({"version": 1, "disable_existing_loggers": False} | settings)
        else:
            with open(path) as file:  # a missing one would be an error of the format, before 3.12
                logging.config.fileConfig(file, disable_existing_loggers=False)
    except Exception as error:  # of any kind: it runs what the file names
        cause = f" ({error.__cause__})" if error.__cause__ is not None else ""
        what = error.strerror if isinstance(error, OSError) else f"{error!r}{cause}"
        raise OptionError(
            f"cannot configure the log from {path!r}: {escaped(str(what))}"
        ) from error


class TextFormatter(logging.Formatter):
    """``2026-01-31 12:00:00.123 INFO [Upper on tcp://127.0.0.1:9999] accepted #1 ...``, in UTC.

    The record of an event names its server.

    Further lines of a record begin with ``  | ``, and invisible characters are escaped: nothing that a
    peer has chosen looks like a line of its own.
    """

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """The lines, without the last line end."""
        return marked(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The time, the level, the server, the message."""
        event = getattr(record, "event", None)
        if isinstance(event, ServerEvent) and event.server:
            message = f"[{event.server}] {record.message}"
            record = logging.makeLogRecord(vars(record) | {"message": message})
        return super().formatMessage(record)

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        """The time of the record, to the millisecond."""
        return _time(record).isoformat(" ", "milliseconds").removesuffix("+00:00")


class JSONFormatter(logging.Formatter):
    """One JSON object a line: ``time``, ``level``, ``logger``, ``message``, what else there is.

    That is the name and the fields of an event, a traceback, and the ``extra`` of a program's record.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its line end."""
        line: dict[str, Any] = {
            "time": _time(record).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        event = getattr(record, "event", None)
        if isinstance(event, ServerEvent):
            line["event"] = type(event).__name__
            names = [field.name for field in dataclasses.fields(event)]
            if event.worker is None:
                names.remove("worker")
            line |= {name: _plain(getattr(event, name)) for name in names}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = record.stack_info
        own = {n: v for n, v in vars(record).items() if n not in _STANDARD and n not in line}
        return _dump(line | own)


_STANDARD = {*vars(logging.makeLogRecord({})), "event", "message", "asctime", "taskName"}
"""The attributes of a record that are no ``extra`` of the program."""


def _dump(line: dict[str, Any]) -> str:
    try:
        return json.dumps(line, default=repr)
    except (TypeError, ValueError):  # keys that are no texts, circles
        return json.dumps({name: _as_text(value) for name, value in line.items()})


def _as_text(value: Any) -> Any:
    return value if isinstance(value, str | int | float | None) else repr(value)


def _plain(value: Any) -> Any:
    """``value`` as JSON allows it: addresses become lists, objects that JSON lacks their ``repr``."""
    if value is None or isinstance(value, bool | int | float | str | list | tuple | dict):
        return value
    return str(value) if dataclasses.is_dataclass(value) else repr(value)


def _time(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)
