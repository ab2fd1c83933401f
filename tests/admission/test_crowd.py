"""``admission.crowd``: connections by peer, and who has the most."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from everserve.admission.crowd import Crowd


def peer(number: int) -> Any:
    return (f"192.0.2.{number}", 4711)


def crowd_of(**peers: str) -> Crowd:
    """``crowd_of(ab="1")``: the connections ``a`` and ``b`` of the peer 1."""
    crowd = Crowd()
    for names, number in peers.items():
        for name in names:
            crowd.add(name, peer(int(number)))
    return crowd


def test_the_peer_with_the_most_makes_room() -> None:
    crowd = crowd_of(a="1", bcd="2", ef="3")
    assert crowd.candidates(peer(9), 64) == ["b", "c", "d"]
    assert crowd.candidates(peer(9), 2) == ["b", "c"]
    assert crowd.candidates(peer(1), 64) == ["b", "c", "d"]


def test_a_peer_that_has_as_many_makes_room_for_itself() -> None:
    crowd = crowd_of(ab="1", cd="2")
    assert crowd.candidates(peer(2), 64) == ["c", "d"]
    assert crowd.candidates(peer(9), 64) == ["a", "b", "c", "d"]


def test_one_address_takes_one_place_of_the_others_at_most() -> None:
    crowd = crowd_of(a="1", b="2", c="3")
    taken = []
    for newcomer in "xyz":
        victim = crowd.candidates(peer(9), 64)[0]
        taken.append(victim)
        crowd.remove(victim)
        crowd.add(newcomer, peer(9))
    assert taken == ["a", "x", "y"]


def test_what_has_no_network_is_one_peer() -> None:
    crowd = Crowd()
    for name in "ab":
        crowd.add(name, "/run/socket")
    assert crowd.candidates("", 64) == ["a", "b"]


def test_nothing_is_added_or_removed_twice() -> None:
    crowd = crowd_of(a="1")
    crowd.add("a", peer(2))
    assert (len(crowd), "a" in crowd) == (1, True)
    for _ in range(2):
        crowd.remove("a")
    assert (len(crowd), crowd.candidates(peer(1), 64)) == (0, [])
    assert not crowd._groups
    assert not crowd._sizes


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 12), st.integers(0, 3)), max_size=60))
def test_it_agrees_with_counting(steps: list[tuple[bool, int, int]]) -> None:
    crowd = Crowd()
    there: dict[int, int] = {}
    for adds, name, number in steps:
        if adds:
            crowd.add(name, peer(number))
            there.setdefault(name, number)
        else:
            crowd.remove(name)
            there.pop(name, None)
        counts = Counter(there.values())
        largest = {p for p, count in counts.items() if count == max(counts.values())}
        assert {there[found] for found in crowd.candidates(peer(9), 64)} == largest
