"""A short campaign: some rounds, always the same. ``make chaos`` runs a long one."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.certificates import Certificates
from tests.chaos.campaign import STRATEGIES, Round, build

ROUNDS = [("tcp", ""), ("tls", "recv"), ("udp", "poll"), ("unix", "epoll_ctl")]
"""A transport, and what fails with it; "": anything."""


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = build(tmp_path_factory.mktemp("faults"))
    if library is None:
        pytest.skip("there is no C compiler to build the library that makes calls fail")
    return library


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(("scheme", "function"), ROUNDS)
def test_a_server_survives_what_its_kernel_refuses(
    library: Path, certificates: Certificates, strategy: str, scheme: str, function: str
) -> None:
    found = Round(library, certificates, strategy, scheme, 20, function).run()
    assert not found, found
