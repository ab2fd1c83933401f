"""The messages between processes."""

import os

import pytest

from everserve.process.channel import Channel, Closed


def test_messages_keep_their_boundaries() -> None:
    first, second = Channel.pair()
    for message in ("one", ("two", 2)):
        assert first.send(message)
    assert [second.receive(), second.receive(), second.receive()] == [
        ("one", []),
        (("two", 2), []),
        None,
    ]
    first.close()
    with pytest.raises(Closed):
        second.receive()
    assert not second.send("late")
    second.close()


@pytest.mark.parametrize("size", [10, 1_000_000])
def test_descriptors_come_along(size: int) -> None:
    first, second = Channel.pair()
    reader, writer = os.pipe()
    assert first.send("x" * size, writer)
    received = second.receive()
    assert received is not None
    message, (descriptor,) = received
    os.close(writer)
    os.write(descriptor, b"y")
    assert (os.read(reader, 1), len(message)) == (b"y", size)
    for one in (descriptor, reader):
        os.close(one)
    first.close()
    second.close()


def test_a_reader_that_does_not_read_is_not_waited_for() -> None:
    first, second = Channel.pair()
    while first.send(b"x" * 60_000):
        pass
    assert not first.send(b"x" * 60_000, wait=0.01)
    assert second.receive() is not None
    first.close()
    second.close()
