"""``sockets.wakeup``: any thread can wake a selector, any number of times."""

from __future__ import annotations

import os
import select
import selectors
import signal
import socket
from collections.abc import Iterator

import pytest
from tests.clients import LIMIT, Background

from everserve.sockets.wakeup import Wakeup


@pytest.fixture
def wakeup() -> Wakeup:
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


def fill(wakeup: Wakeup) -> None:
    try:
        while True:
            os.write(wakeup._writer, bytes(4096))
    except BlockingIOError:
        pass


def test_a_full_one_is_readable(wakeup: Wakeup) -> None:
    for _ in range(2):
        fill(wakeup)
        wakeup.wake()
        assert is_readable(wakeup)
        wakeup.clear()
        assert not is_readable(wakeup)


def test_the_descriptors_close_with_the_last_reference() -> None:
    wakeup = Wakeup()
    descriptors = {wakeup._reader, wakeup._writer}
    del wakeup
    for descriptor in descriptors:
        with pytest.raises(OSError):
            os.fstat(descriptor)


@pytest.fixture
def _ignored_signal() -> Iterator[None]:
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    yield
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.usefixtures("_ignored_signal")
def test_signals_wake_the_main_thread(wakeup: Wakeup) -> None:
    with wakeup.woken_by_signals():
        signal.raise_signal(signal.SIGUSR1)
        assert is_readable(wakeup)
        wakeup.clear()
    signal.raise_signal(signal.SIGUSR1)
    assert not is_readable(wakeup)


@pytest.mark.usefixtures("_ignored_signal")
def test_a_full_one_is_no_error_for_a_signal(
    wakeup: Wakeup, capfd: pytest.CaptureFixture[str]
) -> None:
    fill(wakeup)
    with wakeup.woken_by_signals():
        signal.raise_signal(signal.SIGUSR1)
    assert capfd.readouterr().err == ""


@pytest.mark.usefixtures("_ignored_signal")
def test_an_earlier_wake_up_descriptor_is_kept(wakeup: Wakeup) -> None:
    other = Wakeup()
    with other.woken_by_signals():
        with wakeup.woken_by_signals():
            signal.raise_signal(signal.SIGUSR1)
            assert is_readable(other)
            assert not is_readable(wakeup)
        assert signal.set_wakeup_fd(-1) == other._writer


def test_other_threads_get_no_signals(wakeup: Wakeup) -> None:
    def enter() -> bool:
        with wakeup.woken_by_signals():
            return True

    assert Background(enter).result() is True


@pytest.mark.parametrize("name", ["pipe", "read", "write", "close", "set_blocking"])
def test_it_uses_no_name_that_a_program_replaces(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, name, None)
    monkeypatch.setattr(socket, "socketpair", None)
    monkeypatch.setattr(socket, "socket", None)
    made = Wakeup()
    made.wake()
    made.clear()
    del made


def test_one_that_could_not_be_made_closes_nothing() -> None:
    half = Wakeup.__new__(Wakeup)
    half._reader = half._writer = -1
    del half


def test_it_belongs_to_the_process_that_made_it(
    wakeup: Wakeup, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert wakeup.is_own
    monkeypatch.setattr("everserve.sockets.wakeup.getpid", lambda: -1)
    assert not wakeup.is_own


def test_they_are_not_inherited(wakeup: Wakeup) -> None:
    for descriptor in {wakeup._reader, wakeup._writer}:
        assert not os.get_inheritable(descriptor)


def test_one_that_the_collector_has_finalised_wakes_no_one() -> None:
    """Its descriptors may belong to others by now."""
    wakeup = Wakeup()
    wakeup.__del__()
    other = Wakeup()
    with selectors.DefaultSelector() as selector:
        selector.register(other, selectors.EVENT_READ)
        wakeup.wake()
        assert selector.select(0) == []
