"""``lifecycle.peerorder``: one datagram of a peer at a time."""

from everserve.lifecycle.peerorder import PeerOrder


def test_one_of_a_peer_at_a_time_in_order() -> None:
    order = PeerOrder()
    assert order.enter("a", 1, 9, "newest") == (True, None)
    assert order.enter("b", 2, 9, "newest") == (True, None)
    assert order.enter("a", 3, 9, "newest") == (False, None)
    assert order.enter("a", 4, 9, "newest") == (False, None)
    assert [order.leave("a"), order.leave("b"), order.leave("a"), order.leave("a")] == [
        3,
        None,
        4,
        None,
    ]
    assert order.enter("a", 5, 9, "newest") == (True, None)


def test_what_is_dropped() -> None:
    order = PeerOrder()
    for drops in ("newest", "oldest"):
        order.enter(drops, 0, 1, drops)
        assert order.enter(drops, 1, 1, drops) == (False, None)
    assert order.enter("newest", 2, 1, "newest") == (False, 2)
    assert order.enter("oldest", 2, 1, "oldest") == (False, 1)
    assert (order.leave("newest"), order.leave("oldest")) == (1, 2)


def test_nothing_of_what_was_cleared_is_started() -> None:
    order = PeerOrder()
    for number in range(3):
        order.enter("a", number, 9, "newest")
    assert order.clear() == [1, 2]
    assert order.leave("a") is None
