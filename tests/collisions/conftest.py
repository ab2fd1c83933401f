"""A program written for ``socketserver`` keeps its own names, whatever it calls them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from tests.certificates import Certificates
from tests.collisions.handlers import Notes


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """For Unix sockets: the system's limit for such a path is short."""
    with TemporaryDirectory() as path:
        yield Path(path)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def notes() -> Iterator[Notes]:
    notes = Notes()
    yield notes
    notes.close()


@pytest.fixture(autouse=True)
def _silent() -> Iterator[None]:
    """Each failure is reported by the test; the log of a failed trial would bury it."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)
