"""``sockets.accepting``: the verdict on an accept error, and the clock of the back-off."""

from __future__ import annotations

import errno
import ssl

import pytest

from everserve.sockets.accepting import BackOff, Verdict, classify


@pytest.mark.parametrize(
    "number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EOPNOTSUPP]
)
def test_exhaustion_backs_off(number: int) -> None:
    assert classify(OSError(number, "")) is Verdict.BACK_OFF


@pytest.mark.parametrize("number", [errno.EBADF, errno.EINVAL, errno.ENOTSOCK, errno.EFAULT])
def test_an_unusable_listener_is_fatal(number: int) -> None:
    assert classify(OSError(number, "")) is Verdict.FATAL


@pytest.mark.parametrize(
    "error",
    [
        ConnectionAbortedError(errno.ECONNABORTED, ""),
        OSError(errno.EPROTO, ""),
        BlockingIOError(errno.EAGAIN, ""),
        InterruptedError(errno.EINTR, ""),
        PermissionError(errno.EPERM, "a firewall"),
        OSError(errno.EHOSTUNREACH, ""),
        OSError(errno.ENETDOWN, ""),
        OSError("without a number"),
        TimeoutError("timed out"),
    ],
)
def test_all_other_errors_are_retried(error: OSError) -> None:
    assert classify(error) is Verdict.RETRY


@pytest.mark.parametrize("number", [errno.EBADF, errno.ENOMEM, ssl.SSL_ERROR_SSL])
def test_numbers_that_are_not_the_systems_are_retried(number: int) -> None:
    assert classify(ssl.SSLError(number, "wrong version number")) is Verdict.RETRY


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_delays_double_from_5_ms_to_1_s() -> None:
    clock = Clock()
    back_off = BackOff(clock)
    delays = []
    for _ in range(10):
        back_off.fail()
        delays.append(round(back_off.remaining(), 6))
        clock.now += delays[-1]
    assert delays == [0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0, 1.0]


def test_it_is_over_after_the_delay() -> None:
    clock = Clock()
    back_off = BackOff(clock)
    assert back_off.remaining() == 0.0
    back_off.fail()
    clock.now += 0.004
    assert back_off.remaining() == pytest.approx(0.001)
    clock.now += 0.002
    assert back_off.remaining() == 0.0


def test_a_success_resets_it() -> None:
    back_off = BackOff(Clock())
    for _ in range(5):
        back_off.fail()
    back_off.succeed()
    assert back_off.remaining() == 0.0
    back_off.fail()
    assert back_off.remaining() == pytest.approx(0.005)


def test_it_is_reported_once_a_second_with_the_failures_since() -> None:
    clock = Clock()
    back_off = BackOff(clock)
    assert back_off.fail() == 0.005
    assert back_off.reported() == 1
    for _ in range(3):
        clock.now += 0.25
        assert back_off.fail() is None
    clock.now += 0.25
    assert back_off.fail() is not None
    assert back_off.reported() == 4
    assert back_off.reported() == 0


def test_it_is_reported_once_a_second_even_if_an_accept_succeeds_between() -> None:
    back_off = BackOff(Clock())
    assert back_off.fail() is not None
    back_off.succeed()
    assert back_off.fail() is None
