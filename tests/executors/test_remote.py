"""What runs in another process: each outcome is one of its message alone."""

from __future__ import annotations

import pickle

import pytest
from tests.executors.functions import double

from everserve.errors import RemoteError
from everserve.executors.remote import run_message, run_packed, unpack


def test_a_reply() -> None:
    assert unpack(run_message(double, b"ab")) == b"abab"
    assert unpack(run_packed(pickle.dumps(double), b"ab")) == b"abab"


def test_several_replies_come_together() -> None:
    assert list(unpack(run_message(double, b"several"))) == [b"0", b"1", b"2"]


def test_an_exception_brings_its_traceback() -> None:
    with pytest.raises(ValueError, match="no such message") as caught:
        unpack(run_message(double, b"error"))
    assert "in double" in caught.value.__notes__[0]


@pytest.mark.parametrize("message", [b"demanding", b"lambda"])
def test_what_cannot_be_pickled_is_an_error_of_its_message(message: bytes) -> None:
    with pytest.raises(Exception, match=r"too much|pickle"):
        unpack(run_message(double, message))


def test_an_exception_that_cannot_be_read_back_is_a_text() -> None:
    with pytest.raises(RemoteError, match="Demanding: too much"):
        unpack(run_message(double, b"demanding"))


def test_an_exit_ends_the_message_alone() -> None:
    with pytest.raises(SystemExit):
        unpack(run_message(double, b"exit"))


def test_a_function_that_is_not_there() -> None:
    missing = pickle.dumps(double).replace(b"double", b"triple")
    with pytest.raises(AttributeError, match="triple"):
        unpack(run_packed(missing, b""))
