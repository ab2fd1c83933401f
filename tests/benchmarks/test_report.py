"""From samples to figures: ratios are paired by round, targets are judged by their median."""

from pathlib import Path

import pytest
from benchmarks.measure import Figures
from benchmarks.works import WORKS

from benchmarks import report

INTERPRETER = {
    "implementation": "CPython",
    "python": "3.13.0",
    "engine": "native",
    "openssl": "OpenSSL 3.0.19",
    "packages": {"everserve": "1.0", "trio": None},
}
SETTINGS = {"rounds": 3, "seconds": 1.0, "pinned": True, "date": "2026-01-01"}


def rate(per_second: float) -> Figures:
    return {"per_second": per_second, "p50_us": 400.0, "p99_us": 900.0}


def results(**rates: list[float | None]) -> report.Results:
    """Results of the work echo; None is a round in which the server failed."""
    made = report.Results(INTERPRETER, {"kernel": "Linux"}, SETTINGS)
    for peer, values in rates.items():
        for value in values:
            made.add(WORKS["echo"], peer, None if value is None else rate(value))
    return made


def test_a_ratio_is_taken_within_a_round() -> None:
    made = results(everserve=[100, 50, 200], gevent=[50, 25, 100])
    assert made.ratios(WORKS["echo"], "everserve", "gevent") == [2, 2, 2]


def test_a_round_in_which_one_failed_gives_no_ratio() -> None:
    made = results(everserve=[100, None, 200], gevent=[50, 25, 80])
    assert made.ratios(WORKS["echo"], "everserve", "gevent") == [2, 2.5]


def test_targets_are_judged_by_the_median() -> None:
    (verdict,) = report.verdicts(results(everserve=[100, 210, 250], gevent=[100, 100, 100]))
    assert verdict.met
    assert verdict.wanted == ">= 2 x gevent"
    assert verdict.measured == "2.10 x (1.00 - 2.50)"


@pytest.mark.parametrize(("kilobytes", "met"), [(6.5, True), (6.6, False)])
def test_a_target_may_be_a_constant(kilobytes: float, met: bool) -> None:
    made = results()
    made.add(WORKS["memory"], "everserve", {"kilobytes": kilobytes, "wakeups": 0.0})
    (verdict,) = report.verdicts(made)
    assert verdict.met is met
    assert verdict.wanted == "<= 6.5 KB"


def test_the_markdown_has_figures_ratios_and_notes() -> None:
    made = results(everserve=[300_000], c=[200_000])
    made.note("trio was left out: no module")
    made.note("trio was left out: no module")
    text = report.markdown(made)
    assert "| **everserve, fibers** | 300,000 | 1.00 | 0.40 | 0.90 |" in text
    assert "| C, epoll (the limit) | 200,000 | 1.50 | 0.40 | 0.90 |" in text
    assert ">= 0.88 x C, epoll (the limit) | 1.50 x | yes |" in text
    assert text.count("trio was left out") == 1


def test_the_markdown_states_that_nothing_could_be_judged() -> None:
    assert "No target could be judged" in report.markdown(results(c=[1000]))


def test_results_survive_a_file(tmp_path: Path) -> None:
    made = results(everserve=[1, None, 3])
    paths = report.save(made, tmp_path, "3.13")
    assert report.load(paths[0]) == made
    assert paths[1].read_text().startswith("# CPython 3.13.0\n")
