"""The fenced blocks of the pages, with the comments that list the needs of a block and its output.

``<!-- needs: certificates -->``: the files of ``Certificates`` are in the working folder.
``<!-- needs: the block above -->``: it continues the Python block before it.
``<!-- file: server.toml -->``: the block is that file in the working folder.
``<!-- talk: hello -> HELLO -->``: a line to the block's server, and its answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["DOCS", "PAGES", "ROOT", "Block", "blocks_of", "fits", "on_free_ports", "table_of"]

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))

_BLOCK = re.compile(
    r"(?P<comments>(?:<!--[^\n]*-->\n+)*)```(?P<language>\w+)\n(?P<code>.*?)```\n"
    r"(?:\n+```text\n(?P<output>.*?)```\n)?",
    re.DOTALL,
)
_PORT = re.compile(r"((?:tcp|tls|udp)://(?:\[[^]]*\]|[^\":\s]*)):\d+")


@dataclass(frozen=True)
class Block:
    """One block: its place, its kind, and the output that the page shows below it."""

    page: str
    line: int
    language: str
    code: str
    needs: tuple[str, ...]
    talk: tuple[str, str] | None
    file: str | None
    output: str | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """The blocks of a page in order; one that needs the block above has that one's code first."""
    found: list[Block] = []
    before = ""
    text = page.read_text()
    for match in _BLOCK.finditer(text):
        comments = re.findall(r"<!-- (\w+): (.*?) -->", match["comments"])
        needs = tuple(value for word, value in comments if word == "needs")
        code = match["code"]
        if match["language"] == "python":
            if "the block above" in needs:
                code = before + code
            before = code
        talk = next((value.split(" -> ") for word, value in comments if word == "talk"), None)
        found.append(
            Block(
                page=page.name,
                line=text.count("\n", 0, match.start("code")),
                language=match["language"],
                code=code,
                needs=needs,
                file=next((value for word, value in comments if word == "file"), None),
                talk=None if talk is None else (talk[0], talk[1]),
                output=match["output"],
            )
        )
    return found


def on_free_ports(code: str) -> str:
    """The same with port 0 in each address that is to be listened on."""
    return _PORT.sub(r"\1:0", code)


def fits(shown: str, seen: str) -> bool:
    """True if ``seen`` is the text of the page, in which ``...`` matches anything."""
    pattern = ".*?".join(re.escape(part) for part in shown.strip().split("..."))
    return re.fullmatch(pattern, seen.strip(), re.DOTALL) is not None


def table_of(page: str, head: str) -> list[list[str]]:
    """The rows of the table of a page whose first line begins with ``head``, cell by cell."""
    lines = iter((DOCS / page).read_text().splitlines())
    for line in lines:
        if line.startswith(head):
            break
    else:
        raise AssertionError(f"{page} has no table that begins with {head!r}")
    next(lines)
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))])
    return rows
