"""``sockets.tls.hello``: the name in a ClientHello, however it is cut into records and reads."""

from __future__ import annotations

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everserve.sockets.tls.hello import (
    LONGEST,
    ChangedName,
    HelloError,
    HelloReader,
    UnreadableName,
    server_name,
)


def hello(name: str | None = "localhost") -> bytes:
    """What OpenSSL sends for `name`: one record."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    outgoing = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name).do_handshake()
    return outgoing.read()


GOOD = hello()
BAD = GOOD.replace(b"localhost", b"local\xffost")


def in_records(flight: bytes, size: int) -> bytes:
    """The message of `flight` in records of `size` bytes."""
    message = flight[5:]
    parts = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + len(part).to_bytes(2, "big") + part for part in parts)


def test_the_name() -> None:
    assert server_name(GOOD[9:]) == b"localhost"
    assert server_name(hello("a.example.org")[9:]) == b"a.example.org"
    assert server_name(hello(None)[9:]) == b""


@given(st.integers(1, 600))
@pytest.mark.parametrize(
    ("asked", "known"), [("localhost", "localhost"), ("One.Example.Org", "one.example.org")]
)
def test_the_reader_knows_the_name(asked: str, known: str, size: int) -> None:
    for flight in (hello(asked), in_records(hello(asked), size)):
        reader = HelloReader()
        assert reader.feed(flight) == flight
        assert reader.name == known


@pytest.mark.parametrize("flight", [hello(None), b"no hello"])
def test_the_reader_knows_no_name(flight: bytes) -> None:
    reader = HelloReader()
    reader.feed(flight)
    assert reader.done
    assert reader.name is None


@given(st.integers(0, len(GOOD)))
def test_a_hello_that_is_cut_has_no_name_or_a_part_of_it(size: int) -> None:
    assert b"localhost".startswith(server_name(GOOD[9:size]))


@given(st.integers(1, 600), st.lists(st.integers(1, 600), max_size=20))
def test_any_cut_gives_the_same(size: int, cuts: list[int]) -> None:
    for flight, good in ((GOOD, True), (BAD, False)):
        data, reader, passed = in_records(flight, size) + b"more", HelloReader(), b""
        try:
            at = 0
            for cut in cuts:
                passed += reader.feed(data[at : at + cut])
                at += cut
            passed += reader.feed(data[at:])
        except UnreadableName:
            assert not good
            assert passed == b""
        else:
            assert good
            assert passed == data


@given(st.binary(max_size=300), st.booleans())
def test_garbage_is_passed_on_or_held_back(garbage: bytes, like_a_record: bool) -> None:
    data = (b"\x16\x03\x01\x00\x10\x01" if like_a_record else b"") + garbage
    reader = HelloReader()
    try:
        passed = reader.feed(data)
    except UnreadableName:
        return
    assert passed == (data if reader.done else b"")
    if data and data[0] != 22:
        assert reader.done


def test_what_is_not_a_hello_goes_on_at_once() -> None:
    for data in (
        b"GET / HTTP/1.1",
        b"\x15",
        b"\x16\x03\x01\x00\x01\x02",
        b"\x16\x03\x01\x00\x04\x00\x00\x00\x00",
    ):
        assert HelloReader().feed(data) == data


def test_what_is_endless_is_for_openssl_to_refuse() -> None:
    reader = HelloReader()
    record = b"\x16\x03\x01\x40\x00" + b"\x01\xff\xff\xff" * 4096
    passed = b""
    for _ in range(LONGEST // len(record) + 2):
        passed += reader.feed(record)
    assert reader.done
    assert len(passed) > LONGEST


CHANGE_CIPHER_SPEC = b"\x14\x03\x03\x00\x01\x01"
FINISHED = b"\x17\x03\x03\x00\x20" + b"f" * 32


@given(st.integers(1, 600), st.lists(st.integers(1, 600), max_size=20), st.booleans())
def test_the_second_hello_is_read_too(size: int, cuts: list[int], compatible: bool) -> None:
    """After a HelloRetryRequest, in any pieces, with a record for middleboxes between or not."""
    first, second = hello("one.example.org"), in_records(hello("one.example.org"), size)
    rest = (CHANGE_CIPHER_SPEC if compatible else b"") + second + FINISHED
    reader = HelloReader()
    assert reader.feed(first) == first
    assert reader.name == "one.example.org"
    passed = b""
    for cut in cuts:
        passed += reader.feed(rest[:cut])
        rest = rest[cut:]
    passed += reader.feed(rest)
    assert passed == (CHANGE_CIPHER_SPEC if compatible else b"") + second + FINISHED
    assert reader.name == "one.example.org"


@given(st.integers(1, 600), st.booleans())
def test_the_second_hello_may_not_ask_for_another_name(size: int, compatible: bool) -> None:
    first, second = hello("one.example.org"), in_records(hello("two.example.org"), size)
    reader = HelloReader()
    reader.feed(first)
    with pytest.raises(ChangedName):
        reader.feed((CHANGE_CIPHER_SPEC if compatible else b"") + second + FINISHED)
    assert reader.name == "one.example.org"


def test_a_second_hello_is_refused_as_the_first_is() -> None:
    reader = HelloReader()
    reader.feed(GOOD)
    with pytest.raises(UnreadableName):
        reader.feed(CHANGE_CIPHER_SPEC + BAD)


@pytest.mark.parametrize(
    "answer",
    [CHANGE_CIPHER_SPEC + FINISHED, FINISHED, b"\x16\x03\x03\x40\x00\x0b\x00", b"\x15\x03"],
    ids=["1.3", "1.3 without", "1.2 certificate", "alert"],
)
def test_without_a_second_hello_nothing_is_held_back(answer: bytes) -> None:
    reader = HelloReader()
    reader.feed(GOOD)
    assert reader.feed(answer) == answer
    assert reader.feed(b"more") == b"more"
    assert reader.name == "localhost"


def test_a_long_hello_is_refused_when_it_says_so() -> None:
    with pytest.raises(HelloError):
        HelloReader().feed(b"\x16\x03\x01\x00\x04\x01" + (LONGEST + 1).to_bytes(3, "big"))


def test_what_never_completes_is_not_kept() -> None:
    """Records that carry nothing, or one that is announced and does not end."""
    for endless in (
        b"\x16\x03\x01\x00\x00" * LONGEST,
        b"\x16\x03\x01\x40\x00\x01" + bytes(LONGEST),
    ):
        reader = HelloReader()
        pieces = [endless[at : at + 1000] for at in range(0, len(endless), 1000)]
        with pytest.raises(HelloError):
            any(reader.feed(piece) for piece in pieces)
        assert len(reader._held) <= LONGEST + 1000
