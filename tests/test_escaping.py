"""Texts of peers as they may stand in a log."""

import logging

import pytest

from everserve.escaping import describe, escaped, mark_traceback, marked


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("plain, \u00e4 and \u4e2d", "plain, \u00e4 and \u4e2d"),
        ("a\nb\r\x1b[2J", r"a\nb\r\x1b[2J"),
        ("\x85\u2028\u202e\udc80", r"\x85\u2028\u202e\udc80"),
    ],
)
def test_a_text_on_one_line(text: str, line: str) -> None:
    assert escaped(text) == line
    assert line.isprintable()


def test_further_lines_are_marked_once() -> None:
    once = marked("first\n\tsecond\x1b\n\nlast")
    assert once == "first\n  | \tsecond\\x1b\n  | \n  | last"
    assert marked(once) == once


def test_an_exception_whose_repr_fails() -> None:
    class Odd(Exception):
        def __repr__(self) -> str:
            raise LookupError

    assert describe(Odd()) == "<Odd, whose repr fails>"
    assert describe(ValueError("a\nb")) == r"ValueError('a\nb')"


def test_a_traceback_is_marked_before_it_is_formatted() -> None:
    error = ValueError("x\nforged\x1b")
    record = logging.makeLogRecord({"exc_info": (ValueError, error, None), "msg": "failed"})
    assert mark_traceback(record)
    assert logging.Formatter().format(record) == ("failed\n  | ValueError: x\n  | forged\\x1b")
    record.exc_text = "already there"
    assert mark_traceback(record)
    assert record.exc_text == "already there"
