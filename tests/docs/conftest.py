"""The folder in which the code of the pages runs: with certificates, examples, the pages' files."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.certificates import Certificates
from tests.docs.blocks import PAGES, ROOT, blocks_of


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Throw-away certificates; snippets that renew them do so with a copy."""
    return Certificates(tmp_path_factory.mktemp("docs"))


@pytest.fixture(scope="session")
def folder(certificates: Certificates) -> Path:
    """The folder of snippets and commands: like the repository, with certificates."""
    (certificates.folder / "examples").symlink_to(ROOT / "examples")
    for block in (block for page in PAGES for block in blocks_of(page) if block.file):
        file = certificates.folder / str(block.file)
        file.parent.mkdir(exist_ok=True)
        file.write_text(block.code)
    return certificates.folder
