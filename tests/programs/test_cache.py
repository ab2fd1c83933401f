"""A program comes from its sdist, the one whose hash is listed; a failure is one line."""

from __future__ import annotations

import hashlib
import io
import sys
import tarfile
from pathlib import Path

import pytest
from tools.programs.cache import Folder, NotAvailable, link_everserve, reason_in
from tools.programs.catalogue import Program
from tools.programs.processes import Processes

pytestmark = [
    pytest.mark.usefixtures("unmeasured"),
    pytest.mark.timeout(120),  # two calls of pip
]

BACKEND = """
import pathlib

def prepare_metadata_for_build_wheel(folder, settings=None):
    info = pathlib.Path(folder, "tiny-1.0.dist-info")
    info.mkdir()
    info.joinpath("METADATA").write_text("Metadata-Version: 2.1\\nName: tiny\\nVersion: 1.0\\n")
    return info.name

def build_wheel(folder, settings=None, metadata=None):
    raise NotImplementedError
"""

FILES = {
    "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "b"\nbackend-path = ["."]\n',
    "b.py": BACKEND,
    "PKG-INFO": "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
    "tests/test_tiny.py": "def test(): pass\n",
}


def sdist(folder: Path) -> str:
    """Write the sdist of a program. Returns its hash."""
    folder.mkdir()
    path = folder / "tiny-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, text in FILES.items():
            entry = tarfile.TarInfo(f"tiny-1.0/{name}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def folder(tmp_path: Path, sha256: str) -> Folder:
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path / "registry")}
    folder = Folder(
        Program("tiny", "1.0", sha256, ["tests"], variables=offline), Processes(), tmp_path / "home"
    )
    folder.path.mkdir(parents=True)
    folder.python = Path(sys.executable)
    return folder


def test_the_sdist_is_fetched_and_unpacked(tmp_path: Path) -> None:
    tiny = folder(tmp_path, sdist(tmp_path / "registry"))
    tiny.fetch()
    tiny.unpack()
    assert (tiny.source / "tests/test_tiny.py").read_text() == FILES["tests/test_tiny.py"]


def test_another_sdist_than_listed_is_refused(tmp_path: Path) -> None:
    sdist(tmp_path / "registry")
    with pytest.raises(NotAvailable, match=r"(?s)^download .*HASHES"):
        folder(tmp_path, "0" * 64).fetch()


def test_what_cannot_be_downloaded_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "registry").mkdir()
    with pytest.raises(NotAvailable) as caught:
        folder(tmp_path, "0" * 64).fetch()
    assert str(caught.value) == (
        "download ended with status 1: ERROR: No matching distribution found for tiny==1.0"
    )


def test_what_is_made_is_not_made_again(tmp_path: Path) -> None:
    tiny = folder(tmp_path, "0" * 64)
    (tiny.path / "made-from.json").write_text(tiny.ingredients())
    tiny.make()  # else it would remove the folder, and fail
    assert (tiny.path / "made-from.json").exists()


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("Looking\nERROR: first\nERROR: second\n\nWARNING: old\n", "ERROR: second"),
        ("one\ntwo\n", "two"),
        ("\n", "no output"),
    ],
)
def test_the_reason_is_the_last_error(output: str, reason: str) -> None:
    assert reason_in(output) == reason


def test_everserve_is_linked_without_its_neighbours(tmp_path: Path) -> None:
    linked = link_everserve(sys.executable, tmp_path)
    assert sorted(path.name for path in linked.iterdir()) == ["everserve", "greenlet"]
    assert (linked / "everserve/__init__.py").exists()
    assert link_everserve(sys.executable, tmp_path) == linked  # again, over the old links
