"""``lifecycle.tally``: one report a second."""

from everserve.lifecycle.tally import Tally


def test_the_first_is_reported_then_once_a_second() -> None:
    tally = Tally()
    assert [tally.add(now) for now in (5.0, 5.1, 5.9, 6.0, 6.5, 7.5)] == [1, 0, 0, 3, 0, 2]
