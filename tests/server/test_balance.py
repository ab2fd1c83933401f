"""The balance between workers, with a clock of its own."""

from everserve.server.balance import Balance, Board


def pair() -> tuple[Balance, Balance, list[float]]:
    clock = [100.0]
    board = Board()
    both = [Balance(board, place, now=lambda: clock[0]) for place in (1, 2)]
    for one in both:
        one.note(0)
    return both[0], both[1], clock


def test_who_has_few_takes_up_to_the_slack() -> None:
    first, _, _ = pair()
    assert first.may_take(0)
    assert first.room == 2
    assert first.took(1)
    assert not first.took(2)


def test_who_has_more_leaves_it_to_the_others_for_a_moment() -> None:
    first, second, clock = pair()
    assert not first.may_take(2)
    assert first.pause() > 0
    assert second.may_take(0)
    second.note(5)
    clock[0] += 1
    assert first.pause() == 0
    assert first.may_take(2)


def test_what_no_one_else_takes_is_taken_after_the_pause_and_more_each_time() -> None:
    first, _, clock = pair()
    taken = []
    for _ in range(8):
        assert not first.may_take(10)
        clock[0] += first.pause()
        assert first.may_take(10)
        taken.append(first.room)
    assert taken == [1, 2, 4, 8, 16, 32, 64, 64]


def test_a_later_connection_is_left_to_the_others_again() -> None:
    first, _, clock = pair()
    assert not first.may_take(10)
    clock[0] += 1
    assert not first.may_take(10)


def test_the_slack_grows_with_the_connections() -> None:
    first, second, _ = pair()
    second.note(800)
    assert first.may_take(900)
    assert not first.may_take(902)


def test_who_has_left_counts_no_more() -> None:
    first, second, _ = pair()
    second.leave()
    second.note(0)
    assert first.may_take(100)
    assert second.may_take(1000)
    assert second.pause() == 0
