"""The parts of limits."""

from types import SimpleNamespace

import pytest

import everserve
from everserve.errors import OptionError
from everserve.process.orders import Share
from everserve.process.shares import check_shares, limits_of, set_shares, share_of


@pytest.mark.parametrize("of", range(1, 8))
def test_the_parts_make_up_the_whole(of: int) -> None:
    shares = [Share(index, of) for index in range(of)]
    parts = [share_of("max_connections", 10, share) for share in shares]
    assert sum(parts) == 10
    assert max(parts) - min(parts) <= 1
    assert sum(share_of("accept_rate", 10.0, share) for share in shares) == pytest.approx(10)


def test_a_peer_is_sure_of_its_part() -> None:
    assert share_of("max_connections_per_peer", 10, Share(3, 4)) == 3


def test_a_burst_lets_one_in() -> None:
    assert share_of("accept_burst", 2, Share(0, 4)) == 1.0


def test_only_limits_are_set() -> None:
    server = SimpleNamespace(max_connections=10, max_handshakes=None, accept_rate="mine", tls=1)
    limits = limits_of(server)
    set_shares(server, limits, Share(0, 4))
    assert vars(server) == {
        "max_connections": 3,
        "max_handshakes": None,
        "accept_rate": "mine",
        "tls": 1,
    }


def test_sessions_of_datagrams_need_one_worker() -> None:
    class Handler(everserve.DatagramSessionHandler):
        def handle(self) -> None:
            """Nothing comes."""

    with everserve.make_server(Handler, "udp://127.0.0.1:0") as server:
        check_shares([server], 1)
        with pytest.raises(OptionError, match="workers = 2: a handler with sessions"):
            check_shares([server], 2)


def test_a_limit_that_is_too_small_for_all() -> None:
    with pytest.raises(OptionError, match="workers = 4: max_handshakes = 3 is shared out"):
        check_shares([SimpleNamespace(max_connections=4, max_handshakes=3)], 4)
