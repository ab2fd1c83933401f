"""What the tests of sockets share."""

from __future__ import annotations

import pytest
from tests.certificates import Certificates


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Throw-away certificates, made once for the run."""
    return Certificates(tmp_path_factory.mktemp("certificates"))
