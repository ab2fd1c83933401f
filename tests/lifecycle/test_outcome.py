"""``admission.outcome``: what the parent of a forked request is told."""

from everserve.lifecycle.outcome import Outcome


def test_nothing_to_tell_is_a_good_end() -> None:
    outcome = Outcome()
    assert not any((outcome.refused, outcome.missed, outcome.failed, outcome.error))
