"""Lines for a reader that may be slow, or gone."""

import errno
import os
from collections.abc import Iterator

import pytest
from tests.clients import LIMIT

from everserve.observe.lines import LineWriter

LINE = "x" * 9999 + "\n"


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for descriptor in (reader, writer):
        try:
            os.close(descriptor)
        except OSError:
            pass


def read(reader: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += os.read(reader, size - len(data))
    return data


def test_a_line_is_written_at_once(pipe: tuple[int, int]) -> None:
    lines = LineWriter(pipe[1])
    assert lines.write("one \u00e4 \udc80\n") == 8
    lines.flush()
    assert os.read(pipe[0], 100) == "one \u00e4 \\udc80\n".encode()
    assert lines.finish(LIMIT)


def test_what_a_slow_reader_does_not_take_is_written_later_and_in_order(
    pipe: tuple[int, int],
) -> None:
    lines = LineWriter(pipe[1])
    for number in range(50):
        lines.write(f"{number:3}{LINE}")
    assert not lines.finish(0)
    data = read(pipe[0], 50 * (len(LINE) + 3))
    assert [int(line[:3]) for line in data.splitlines()] == list(range(50))
    assert lines.finish(LIMIT)
    lines.write("next\n")
    assert os.read(pipe[0], 100) == b"next\n"


def test_lines_without_a_reader_are_lost_and_counted(pipe: tuple[int, int]) -> None:
    lines = LineWriter(pipe[1], most=3 * len(LINE))
    for _ in range(50):
        lines.write(LINE)
    data = b""
    while not data.endswith(b"lines lost, as no one read them\n"):
        data += os.read(pipe[0], 65536)
    *kept, note = data.decode().splitlines()
    assert set(kept) == {LINE[:-1]}
    assert note == f"everserve: {50 - len(kept)} lines lost, as no one read them"
    assert lines.finish(LIMIT)


def test_a_reader_that_is_gone_is_an_error_that_stops_nothing(pipe: tuple[int, int]) -> None:
    lines = LineWriter(pipe[1])
    os.close(pipe[0])
    lines.write(LINE)
    assert lines.error is not None
    assert lines.error.errno == errno.EPIPE
    assert lines.finish(0)


def test_a_descriptor_that_does_not_block(pipe: tuple[int, int]) -> None:
    os.set_blocking(pipe[1], False)
    lines = LineWriter(pipe[1])
    for _ in range(20):
        lines.write(LINE)
    assert read(pipe[0], 20 * len(LINE)) == 20 * LINE.encode()


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_begins_with_nothing_kept(pipe: tuple[int, int]) -> None:
    lines = LineWriter(pipe[1])
    for _ in range(20):
        lines.write(LINE)
    child = os.fork()
    if child == 0:
        os._exit(0 if lines.finish(0) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert read(pipe[0], 20 * len(LINE)) == 20 * LINE.encode()
