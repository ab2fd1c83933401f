"""``concurrency.turns``: the datagrams of one peer, one after the other."""

from __future__ import annotations

from everserve.concurrency.turns import Turns


def test_the_first_of_a_peer_does_not_wait() -> None:
    turns = Turns()
    assert not turns.wait("one", "peer")
    assert not turns.wait("other", "another peer")
    assert turns.waiting == 0


def test_the_others_follow_in_order() -> None:
    turns = Turns()
    turns.wait(1, "peer")
    assert turns.wait(2, "peer")
    assert turns.wait(3, "peer")
    assert turns.waiting == 2
    assert [turns.next("peer") for _ in range(3)] == [2, 3, None]
    assert turns.waiting == 0
    assert not turns.wait(4, "peer")


def test_the_oldest_of_the_longest_line_is_dropped() -> None:
    turns = Turns()
    for peer, requests in (("a", (1, 2, 3, 4)), ("b", (5, 6))):
        for request in requests:
            turns.wait(request, peer)
    assert [turns.drop_oldest() for _ in range(5)] == [2, 3, 4, 6, None]
    assert turns.waiting == 0


def test_after_the_end_of_all_a_peer_begins_again() -> None:
    turns = Turns()
    turns.wait(1, "peer")
    turns.wait(2, "peer")
    assert turns.drop_all() == [2]
    turns.forget("peer")
    assert not turns.wait(3, "peer")
