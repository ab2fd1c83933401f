"""``sockets.wakeup``: a selector is woken from any thread, and as often as anybody likes."""

from __future__ import annotations

import os
import select

import pytest
from tests.clients import LIMIT, Background

from everserve.sockets.wakeup import Wakeup


@pytest.fixture(params=["eventfd", "pair"])
def wakeup(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Wakeup:
    if request.param == "pair":
        monkeypatch.delattr(os, "eventfd", raising=False)
    elif not hasattr(os, "eventfd"):
        pytest.skip("no eventfd on this system")
    return Wakeup()


def is_readable(wakeup: Wakeup, timeout: float = 0) -> bool:
    return bool(select.select([wakeup], [], [], timeout)[0])


def test_it_is_readable_from_wake_to_clear(wakeup: Wakeup) -> None:
    assert not is_readable(wakeup)
    wakeup.wake()
    wakeup.wake()
    assert is_readable(wakeup)
    assert is_readable(wakeup)
    wakeup.clear()
    assert not is_readable(wakeup)


def test_clear_does_not_block(wakeup: Wakeup) -> None:
    wakeup.clear()
    wakeup.clear()


def test_it_wakes_another_thread(wakeup: Wakeup) -> None:
    waiter = Background(is_readable, wakeup, LIMIT)
    wakeup.wake()
    assert waiter.result() is True


def test_being_full_is_being_awake(wakeup: Wakeup) -> None:
    try:
        while True:  # 2**64 - 2 at once for an eventfd, a socket's buffer for the other
            os.write(wakeup._writer, b"\xfe" + b"\xff" * 7)
    except BlockingIOError:
        pass
    wakeup.wake()
    assert is_readable(wakeup)


def test_the_descriptors_close_with_the_last_reference(wakeup: Wakeup) -> None:
    own = Wakeup()
    descriptors = {own._reader, own._writer}
    del own
    for descriptor in descriptors:
        with pytest.raises(OSError):
            os.fstat(descriptor)


def test_they_are_not_inherited(wakeup: Wakeup) -> None:
    for descriptor in {wakeup._reader, wakeup._writer}:
        assert not os.get_inheritable(descriptor)
