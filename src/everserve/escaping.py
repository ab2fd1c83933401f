"""Texts as they may stand in a log: what a peer has chosen must not look like a line of its own.

A peer chooses the name of a Unix socket, a PROXY header, a host name, and most of an exception's text.
Events and formatters use it; records with a traceback pass ``mark_traceback``, whatever formats them.
"""

from __future__ import annotations

import logging
import traceback

__all__ = ["CONTINUATION", "describe", "escaped", "mark_traceback", "marked"]

CONTINUATION = "  | "
"""What each further line of a record begins with."""


def escaped(text: str) -> str:
    """``text`` on one line: characters that move a cursor, end a line or are invisible are escaped."""
    if text.isprintable():
        return text
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode("ascii")
        for sign in text
    )


def marked(text: str) -> str:
    """``text`` with all lines after the first marked, and each escaped."""
    first, *further = text.split("\n")
    return "\n".join([_escaped_line(first), *map(_mark, further)])


def _mark(line: str) -> str:
    line = _escaped_line(line)
    return line if line.startswith(CONTINUATION) else CONTINUATION + line


def _escaped_line(line: str) -> str:
    return line if line.isprintable() else "\t".join(map(escaped, line.split("\t")))


def describe(error: BaseException) -> str:
    """The ``repr`` of an exception, on one line."""
    try:
        return escaped(repr(error))
    except Exception:
        return f"<{type(error).__name__}, whose repr fails>"


def mark_traceback(record: logging.LogRecord) -> bool:
    """Format a record's traceback with marked lines, before any formatter does. A logger's filter."""
    if record.exc_info and not record.exc_text:
        text = "".join(traceback.format_exception(record.exc_info[1]))
        record.exc_text = _mark_all(text.rstrip("\n"))
    return True


def _mark_all(text: str) -> str:
    return "\n".join(map(_mark, text.split("\n")))
