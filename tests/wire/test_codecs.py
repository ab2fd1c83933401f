"""Codecs: any split of a stream gives the same messages, and garbage raises ``FrameError`` alone."""

from __future__ import annotations

import importlib
import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engines import loaded

from everserve.errors import FrameError, OptionError
from everserve.messages.codecs import JSONLines, Lines, Netstrings
from everserve.wire.codec import Codec, decode_many, encode_many, is_several, missing
from everserve.wire.lengths import Lengths

LENGTHS = {"python": Lengths, "native": None}
BYTES = st.lists(st.binary(max_size=40), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


class Pairs(Codec):
    """A codec with the two methods alone: messages of two bytes."""

    def decode(self, data: bytes, start: int, /) -> tuple[str, int] | None:
        if len(data) - start < 2:
            return None
        if data[start] > 127 or data[start + 1] > 127:
            raise FrameError("no ASCII")
        return data[start : start + 2].decode("ascii"), start + 2

    def encode(self, message: str, /) -> bytes:
        return message.encode("ascii")


def lengths(engine: str) -> Any:
    if engine == "python":
        return Lengths
    loaded(engine)
    from everserve.wire._lengths import Lengths as compiled  # noqa: PLC0415  # may not be built

    return compiled


FRAMES: dict[str, dict[str, Any]] = {
    "4": {"size": 4},
    "1": {"size": 1},
    "8-little": {"size": 8, "byteorder": "little"},
    "varint": {"size": "varint"},
}


@pytest.fixture(params=["python", "native"])
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=FRAMES)
def frames(request: pytest.FixtureRequest, engine: str) -> Any:
    return lengths(engine)(**FRAMES[request.param])


def read(codec: Any, parts: list[bytes], most: int = 3) -> tuple[list[Any], bytes]:
    """All messages of a stream that comes in parts, and the rest."""
    messages, rest = [], b""
    for part in parts:
        rest += part
        start = 0
        while True:
            found, end = decode_many(codec, rest, start, most)
            if not found:
                assert end == start
                break
            messages += found
            start = end
        rest = rest[start:]
    return messages, rest


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


CUTS = st.lists(st.integers(0, 400), max_size=12)
few = settings(max_examples=40, deadline=None, database=None)


@few
@given(messages=BYTES, cuts=CUTS, ending=st.sampled_from([b"\n", b"\r\n", b"aab"]))
def test_any_split_of_lines(messages: list[bytes], cuts: list[int], ending: bytes) -> None:
    codec = Lines(ending=ending)
    messages = [message.replace(ending[-1:], b"") for message in messages]
    assert read(codec, split(encode_many(codec, messages), cuts)) == (messages, b"")


@pytest.mark.parametrize("kind", FRAMES)
@few
@given(messages=BYTES, cuts=CUTS)
def test_any_split_of_frames(kind: str, messages: list[bytes], cuts: list[int]) -> None:
    for name in ("python", "native"):
        codec = lengths(name)(**FRAMES[kind])
        assert read(codec, split(encode_many(codec, messages), cuts)) == (messages, b"")


@few
@given(messages=BYTES, cuts=CUTS)
def test_any_split_of_netstrings(messages: list[bytes], cuts: list[int]) -> None:
    codec = Netstrings()
    assert read(codec, split(encode_many(codec, messages), cuts)) == (messages, b"")


@few
@given(messages=st.lists(VALUES, max_size=4), cuts=CUTS)
def test_any_split_of_json(messages: list[Any], cuts: list[int]) -> None:
    codec = JSONLines()
    assert read(codec, split(encode_many(codec, messages), cuts)) == (messages, b"")


@few
@given(text=st.text(alphabet="abcdef", max_size=40), cuts=CUTS)
def test_any_split_with_a_codec_of_two_methods(text: str, cuts: list[int]) -> None:
    messages, rest = read(Pairs(), split(text.encode(), cuts))
    assert "".join(messages) + rest.decode() == text


@few
@given(garbage=st.binary(max_size=200), cuts=CUTS)
def test_garbage_raises_frame_errors_alone(garbage: bytes, cuts: list[int]) -> None:
    codecs: list[Any] = [Lines(8), Netstrings(20), JSONLines(30), Pairs()]
    for name in ("python", "native"):
        codecs += [lengths(name)(max_length=50, **kind) for kind in FRAMES.values()]
    for codec in codecs:
        try:
            read(codec, split(garbage, cuts))
        except FrameError:
            pass


@few
@given(data=st.binary(max_size=60), most=st.integers(1, 5), limit=st.integers(1, 300))
def test_both_engines_agree_on_frames(data: bytes, most: int, limit: int) -> None:
    for kind in FRAMES.values():
        results = []
        for name in ("python", "native"):
            try:
                codec = lengths(name)(max_length=limit, **kind)
                results.append((codec.decode_many(data, 0, most), codec.missing(data, 0)))
            except FrameError as error:
                results.append(str(error))
        assert results[0] == results[1]


LINES = st.lists(
    st.sampled_from([b"a", b"ab", b"\n", b"\r", b"\r\n", b"aab", b"0123456789"]), max_size=12
).map(b"".join)


@few
@given(
    data=LINES,
    start=st.integers(0, 3),
    ending=st.sampled_from([b"\n", b"\r\n", b"aab"]),
    most=st.integers(1, 5),
    limit=st.integers(1, 12),
)
def test_both_engines_agree_on_lines(
    data: bytes, start: int, ending: bytes, most: int, limit: int
) -> None:
    start = min(start, len(data))
    expected = pieces_of("python").cut_lines(data, start, ending, most, limit)
    assert pieces_of("native").cut_lines(data, start, ending, most, limit) == expected


@few
@given(
    messages=st.lists(st.one_of(LINES, LINES.map(bytearray)), max_size=4),
    ending=st.sampled_from([b"\n", b"\r\n", b"aab"]),
)
def test_both_engines_join_the_same(messages: list[Any], ending: bytes) -> None:
    joined = [join(pieces_of(name), messages, ending) for name in ("python", "native")]
    assert joined[0] == joined[1]


def join(pieces: Any, messages: list[Any], ending: bytes) -> list[Any]:
    try:
        lines = pieces.join_lines(messages, ending)
    except ValueError as error:
        lines = str(error)
    kinds = [(1, False), (4, False), (8, True), (0, False)]
    return [lines, *(pieces.join_frames(messages, *kind) for kind in kinds)]


def pieces_of(name: str) -> Any:
    loaded(name)
    return importlib.import_module(f"everserve.wire.{'_' if name == 'native' else ''}pieces")


# -- limits ------------------------------------------------------------------------------------


def test_a_line_is_refused_when_its_limit_is_seen() -> None:
    codec = Lines(4, ending=b"\r\n")
    assert codec.decode(b"abcd\r\n", 0) == (b"abcd", 6)
    assert codec.decode(b"abcd\r", 0) is None
    for data in (b"abcde\r", b"abcdef", b"abcde\r\n"):
        with pytest.raises(FrameError, match="more than 4 bytes"):
            codec.decode(data, 0)


def test_lines_before_one_that_is_too_long_are_found_first() -> None:
    codec = Lines(4)
    assert codec.decode_many(b"ab\ncd\nabcdefgh\n", 0, 9) == ([b"ab", b"cd"], 6)
    with pytest.raises(FrameError):
        codec.decode_many(b"ab\ncd\nabcdefgh\n", 6, 9)


def test_a_frame_is_refused_when_its_header_is_seen(engine: str) -> None:
    for codec, header in [
        (lengths(engine)(4, 100), b"\0\0\0\x65"),
        (lengths(engine)("varint", 100), b"\x65"),
        (lengths(engine)("varint", 100), b"\xff\x7f"),
        (lengths(engine)("varint", 2**48), b"\x80" * 10),
        (lengths(engine)(8, 2**48), b"\xff" * 8),
        (Netstrings(100), b"101"),
        (Netstrings(100), b"1000"),
    ]:
        with pytest.raises(FrameError, match="more than"):
            codec.decode(header, 0)


def test_what_is_missing_of_a_frame(frames: Any) -> None:
    data = frames.encode(b"hello")
    for size in range(len(data)):
        assert 1 <= missing(frames, data[:size], 0) <= len(data) - size
    assert missing(frames, data[:-2], 0) == 2
    assert missing(Netstrings(), b"5:he", 0) == 4
    assert missing(Lines(), b"he", 0) == 1


@pytest.mark.parametrize("data", [b":,", b"a:,", b"05:hello,", b"5:hello;", b"-1:,", b"+1:a,"])
def test_bytes_that_are_no_netstring(data: bytes) -> None:
    with pytest.raises(FrameError):
        Netstrings().decode(data, 0)


@pytest.mark.parametrize(
    "line", [b"", b"{", b"NaN", b"\xff", b"\xef\xbb\xbf1", b"[" * 30_000, b"1" * 5_000]
)
def test_a_line_that_is_no_json(line: bytes) -> None:
    with pytest.raises(FrameError) as caught:
        JSONLines().decode(line + b"\n1\n", 0)
    assert caught.value.resumes_at == len(line) + 1
    assert JSONLines().decode(line + b"\n1\n", len(line) + 1) == (1, len(line) + 3)


def test_json_is_one_line() -> None:
    assert JSONLines().encode({"a": "b\nc"}) == b'{"a":"b\\nc"}\n'
    assert json.loads(JSONLines().encode("\u2028").decode()) == "\u2028"
    with pytest.raises(ValueError):
        JSONLines().encode(float("nan"))


def test_a_line_with_its_ending_inside_is_not_sent() -> None:
    with pytest.raises(ValueError, match="ending"):
        Lines().encode(b"a\nb")
    with pytest.raises(ValueError, match="ending"):
        Lines(ending=b"aa").encode(b"a")


def test_a_frame_that_its_length_cannot_say(engine: str) -> None:
    with pytest.raises(ValueError, match="256"):
        lengths(engine)(1).encode(bytes(256))


def test_the_bytes_on_the_wire(engine: str) -> None:
    assert lengths(engine)(2).encode(b"ab") == b"\0\2ab"
    assert lengths(engine)(2, byteorder="little").encode(b"ab") == b"\2\0ab"
    assert lengths(engine)("varint").encode(bytes(300))[:2] == b"\xac\x02"
    assert Netstrings().encode(b"hello") == b"5:hello,"
    assert Lines(ending=b"\r\n").encode(b"a") == b"a\r\n"


def test_replies_of_several_messages() -> None:
    assert is_several(Lines(), [b"a"])
    assert is_several(JSONLines(), iter([1]))
    assert not is_several(JSONLines(), [1])
    assert not is_several(Lines(), b"a")


@pytest.mark.parametrize(
    "make",
    [
        lambda: Lines(0),
        lambda: Lines(ending=b""),
        lambda: Lengths(9),
        lambda: Lengths("short"),  # type: ignore[arg-type]
        lambda: Lengths(4, 0),
        lambda: Lengths(4, byteorder="middle"),  # type: ignore[arg-type]
        lambda: Netstrings(0),
        lambda: JSONLines(0),
    ],
)
def test_options_of_codecs_are_checked(make: Any) -> None:
    with pytest.raises(OptionError, match="expected"):
        make()
