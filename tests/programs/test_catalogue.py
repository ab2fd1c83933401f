"""The list of programs says what can be run, and explains differences by test and strategy."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tools.programs import catalogue
from tools.programs.catalogue import STRATEGIES, Difference, Program

ASKED_FOR = {
    "acme",
    "django",
    "dnslib",
    "dulwich",
    "epc",
    "feedparser",
    "google-auth-oauthlib",
    "hl7apy",
    "impacket",
    "mapproxy",
    "prometheus-client",
    "pytest-localserver",
    "rdflib",
    "sphinx",
    "werkzeug",
}

ONE = """
[[program]]
name = "one"
version = "1.0"
sha256 = "aa"
tests = ["tests"]

[[program.difference]]
tests = ["tests.test_a*"]
strategies = ["fibers"]
reason = "it looks at threads"
"""


def listed(folder: Path, text: str) -> list[Program]:
    file = folder / "programs.toml"
    file.write_text(text)
    return catalogue.read(file)


def test_the_list_of_the_project_is_right() -> None:
    programs = catalogue.read()
    assert {program.name for program in programs} >= ASKED_FOR
    for program in programs:
        assert re.fullmatch("[0-9a-f]{64}", program.sha256), program.name
        assert program.tests, program.name


def test_a_program_is_read_with_its_differences(tmp_path: Path) -> None:
    (program,) = listed(tmp_path, ONE)
    assert program == Program(
        "one",
        "1.0",
        "aa",
        ["tests"],
        differences=[Difference(["tests.test_a*"], "it looks at threads", ["fibers"])],
    )
    assert program.title == "one 1.0"
    assert program.requirement == "one==1.0 --hash=sha256:aa"


def test_a_difference_is_explained_in_its_strategies_only(tmp_path: Path) -> None:
    (program,) = listed(tmp_path, ONE)
    assert program.explanation("fibers", "tests.test_abc") is program.differences[0]
    assert program.explanation("pool", "tests.test_abc") is None
    assert program.explanation("fibers", "tests.test_b") is None


def test_a_difference_is_in_all_strategies_unless_it_says_which() -> None:
    difference = Difference(["*"], "why")
    assert all(difference.explains(strategy, "any") for strategy in STRATEGIES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('reason = "it looks at threads"', 'reason = " "'), "needs a reason"),
        (('reason = "it looks at threads"', ""), "reason"),
        (('["fibers"]', '["forks"]'), "strategies of"),
        (('version = "1.0"', ""), "version"),
        (("sha256", "sha512"), "sha512"),
    ],
)
def test_a_senseless_list_is_an_error(
    tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        listed(tmp_path, ONE.replace(*change))


def test_a_program_listed_twice_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="listed twice: one"):
        listed(tmp_path, ONE + ONE)


def test_programs_are_chosen_by_name(tmp_path: Path) -> None:
    programs = listed(tmp_path, ONE + ONE.replace('"one"', '"two"'))
    assert catalogue.chosen(programs, []) == programs
    assert catalogue.chosen(programs, ["two"]) == programs[1:]
    with pytest.raises(ValueError, match=r"not in programs\.toml: three"):
        catalogue.chosen(programs, ["one", "three"])
