"""Log files that are opened anew."""

import logging
from pathlib import Path

from everserve.process.logfiles import reopen_log_files


def test_a_moved_file_is_replaced(tmp_path: Path) -> None:
    log = logging.getLogger("tests.logfiles")
    handler = logging.FileHandler(tmp_path / "log")
    log.addHandler(handler)
    try:
        log.warning("one")
        (tmp_path / "log").rename(tmp_path / "old")
        reopen_log_files()
        log.warning("two")
    finally:
        log.removeHandler(handler)
        handler.close()
    assert (tmp_path / "old").read_text() == "one\n"
    assert (tmp_path / "log").read_text() == "two\n"
