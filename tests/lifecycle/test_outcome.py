"""``lifecycle.outcome``: the report to the parent of a forked request."""

from everserve.lifecycle.outcome import Outcome


def test_nothing_to_report_is_a_good_end() -> None:
    outcome = Outcome()
    assert not any((outcome.refused, outcome.missed, outcome.failed, outcome.error))
