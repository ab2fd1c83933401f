"""Ctrl-C while the command line is being imported; ``test_commands`` sends it to a process."""

import pytest

from everserve.cli.interruption import is_command


@pytest.mark.parametrize(
    ("orig", "argv", "expected"),
    [
        (["python", "-m", "everserve", "run", "a"], ["-m", "run", "a"], True),
        (["python", "-X", "utf8", "-m", "everserve"], ["-m"], True),
        (["python", "/usr/bin/everserve", "run"], ["/usr/bin/everserve", "run"], True),
        (["everserve.exe"], ["everserve.exe"], True),
        (["python", "-m", "app", "everserve"], ["-m", "everserve"], False),
        (["python", "-c", "import everserve"], ["-c"], False),
        (["python", "server.py"], ["server.py"], False),
        (["python"], [""], False),
        ([], [], False),
    ],
)
def test_the_process_of_the_command(orig: list[str], argv: list[str], expected: bool) -> None:
    assert is_command(orig, argv) is expected
