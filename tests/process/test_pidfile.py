"""``process.pidfile``: the number of the process, in a file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from everserve.errors import OptionError
from everserve.process.pidfile import PidFile


def test_it_has_the_number_until_it_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    file = PidFile(str(path))
    assert path.read_text() == f"{os.getpid()}\n"
    assert path.stat().st_mode & 0o133 == 0
    file.remove()
    assert not path.exists()
    file.remove()


@pytest.mark.parametrize("left", ["", "0", "99999999999999", "4194304", "²", "words", "\x80"])
def test_what_is_left_of_a_process_that_is_gone_is_replaced(tmp_path: Path, left: str) -> None:
    path = tmp_path / "pid"
    path.write_text(left, encoding="latin-1")
    PidFile(str(path)).remove()
    assert not path.exists()


def test_the_file_of_a_process_that_lives_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    path.write_text(f"{os.getppid()}\n")
    with pytest.raises(OptionError, match=f"process {os.getppid()} has it, and is running"):
        PidFile(str(path))
    assert path.read_text() == f"{os.getppid()}\n"


def test_the_file_of_a_process_that_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    path.write_text(f"{os.getppid()}\n")
    PidFile(str(path), replaces=True)
    assert path.read_text() == f"{os.getpid()}\n"


def test_the_file_of_another_process_stays(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    file = PidFile(str(path))
    path.write_text("1\n")
    file.remove()
    assert path.read_text() == "1\n"


def test_no_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "pid").symlink_to(tmp_path / "other")
    with pytest.raises(OSError):
        PidFile(str(tmp_path / "pid"))
    assert not (tmp_path / "other").exists()


def test_in_a_folder_of_another_user_it_is_emptied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = PidFile(str(tmp_path / "pid"))

    def refuse(path: str) -> None:
        raise PermissionError(path)

    monkeypatch.setattr(os, "unlink", refuse)
    file.remove()
    assert (tmp_path / "pid").read_text() == ""
