"""The properties of ``make fuzz``, for a bounded number of streams, and a codec that breaks each."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fuzz import campaign, streams

from everserve.wire.lines import Lines

few = settings(max_examples=60, deadline=None, database=None, derandomize=True)


@few
@given(head=st.binary(min_size=streams.HEAD, max_size=streams.HEAD), stream=st.binary(max_size=120))
def test_any_bytes(head: bytes, stream: bytes) -> None:
    streams.check(head + stream)


@few
@given(st.integers(0, 2**32))
def test_valid_streams_with_changes(seed: int) -> None:
    streams.check(campaign.changed(random.Random(seed)))


def test_each_kind_has_a_valid_stream() -> None:
    assert len(campaign.SEEDS) == len(streams.KINDS)
    for make, seed in zip(streams.KINDS, campaign.SEEDS, strict=True):
        for codec in make(250):
            assert streams.read(codec, [seed], 9).messages, seed


def test_the_campaign_by_chance_checks_until_its_time_is_over() -> None:
    checked: list[bytes] = []
    campaign.by_chance(checked.append, 0.05, seed=7)
    again: list[bytes] = []
    campaign.by_chance(again.append, 0.05, seed=7)
    assert checked
    assert all(first == second for first, second in zip(checked, again, strict=False))


class Forgetful(Lines):
    """Sees no ending at the very end of what has come."""

    def decode_many(self, data: bytes, start: int, most: int, /) -> tuple[list[bytes], int]:
        return super().decode_many(data[:-1], start, most)


class Unbounded(Lines):
    """Checks no limit, but says that there is one."""

    def __init__(self) -> None:
        super().__init__()
        self.max_length = 2

    def decode_many(self, data: bytes, start: int, most: int, /) -> tuple[list[bytes], int]:
        return Lines().decode_many(data, start, most)


class Strict(Lines):
    """Raises another error than ``FrameError``."""

    def decode_many(self, data: bytes, start: int, most: int, /) -> tuple[list[bytes], int]:
        found = super().decode_many(data, start, most)
        if b"\0" in data:
            raise IndexError("a NUL")
        return found


class Hungry(Lines):
    """Asks for more than is missing."""

    def missing(self, data: bytes, start: int, /) -> int:
        return 100


@pytest.mark.parametrize("codec", [Unbounded(), Hungry()])
def test_a_broken_codec_is_found(codec: Lines) -> None:
    with pytest.raises(AssertionError):
        streams.compare([codec], b"one\ntwo\n", [1, 5], 3)


def test_codecs_that_differ_are_found() -> None:
    with pytest.raises(AssertionError):
        streams.compare([Lines(), Forgetful()], b"one\ntwo\n", [], 3)


def test_an_error_of_another_kind_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    def check(data: bytes) -> None:
        streams.compare([Strict()], data, [], 3)

    with pytest.raises(IndexError):
        campaign.reported(check)(b"a\n\0\n")
    assert '--bytes 610a000a"' in capsys.readouterr().out


def test_every_kind_is_chosen() -> None:
    kinds = {campaign.changed(random.Random(seed))[0] for seed in range(200)}
    assert kinds == set(range(len(streams.KINDS)))
