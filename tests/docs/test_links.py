"""Each link of a page leads to a file, and to a heading in it; each page is on the map."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.docs.blocks import DOCS, PAGES

LINKS = [
    (page, link)
    for page in PAGES
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    if not link.startswith("https://")
]


def anchors_of(page: Path) -> set[str]:
    """The names that the headings of a page have: lower case, hyphens, no other signs."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(("page", "link"), LINKS, ids=lambda part: str(getattr(part, "name", part)))
def test_a_link_leads_somewhere(page: Path, link: str) -> None:
    file, _, anchor = link.partition("#")
    target = (page.parent / file).resolve() if file else page
    assert target.exists()
    if anchor:
        assert anchor in anchors_of(target)


def test_each_page_is_on_the_map() -> None:
    index = (DOCS / "index.md").read_text()
    for page in PAGES:
        assert page.name == "index.md" or f"]({page.name})" in index


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_has_one_title_and_no_long_lines(page: Path) -> None:
    lines = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL).splitlines()
    assert [line for line in lines if line.startswith("# ")] == lines[:1]
    assert not [line for line in lines if len(line) > 120 and not line.startswith("|")]
