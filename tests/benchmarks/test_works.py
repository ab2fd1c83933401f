"""The tables of peers and works fit together."""

import pytest
from benchmarks.measure import SERVERS
from benchmarks.peers import PEERS
from benchmarks.works import WORKS, Work, chosen


@pytest.mark.parametrize("name", PEERS)
def test_every_peer_has_its_program(name: str) -> None:
    assert (SERVERS / PEERS[name].program).is_file()


@pytest.mark.parametrize("work", WORKS.values(), ids=lambda work: work.name)
def test_every_work_has_peers_that_can_do_it(work: Work) -> None:
    assert all(work.mode in PEERS[name].modes for name in work.peers)
    for target in work.targets:
        assert {target.peer, target.against or target.peer} <= set(work.peers)


def test_works_are_chosen_by_name_and_by_group() -> None:
    assert [work.name for work in chosen(["large", "echo"])] == ["echo", "large-16k", "large-1m"]


def test_the_error_of_an_unknown_work_lists_all_works() -> None:
    with pytest.raises(
        KeyError, match="no work ehco: choose from active, armed, asyncio, asyncio-echo"
    ):
        chosen(["ehco"])
