"""``process.machine``: what a machine allows, from files that say so."""

from __future__ import annotations

from pathlib import Path

import pytest

from everserve.process.machine import Machine

FILES = {
    "proc/sys/fs/nr_open": "1048576",
    "proc/sys/fs/file-max": "1000000",
    "proc/sys/net/core/somaxconn": "4096",
    "proc/sys/net/core/rmem_default": "212992",
    "proc/sys/net/core/rmem_max": "16777216",
    "proc/sys/net/ipv4/tcp_max_syn_backlog": "4096",
    "proc/sys/net/ipv4/tcp_syncookies": "1",
    "proc/sys/net/ipv4/ip_local_port_range": "32768\t60999",
    "proc/sys/vm/overcommit_memory": "0",
    "proc/sys/vm/max_map_count": "65530",
    "proc/sys/kernel/threads-max": "100000",
    "proc/sys/kernel/pid_max": "4194304",
    "proc/meminfo": "MemTotal: 2000000 kB\nMemAvailable: 1000000 kB",
    "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never",
}
LIMITS = {"NOFILE": (1024, 1_048_576), "NPROC": (-1, -1), "STACK": (8 << 20, -1)}


def examined(
    root: Path, connections: int, files: dict[str, str] | None = None, **limits: tuple[int, int]
) -> dict[str, tuple[str, str]]:
    for path, text in (FILES if files is None else FILES | files).items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")
    machine = Machine(root=root, limit=lambda name: (LIMITS | limits)[name])
    return {found.name: (found.value, found.advice) for found in machine.examine(connections)}


def test_a_machine_that_is_fit(tmp_path: Path) -> None:
    found = examined(tmp_path, 10_000)
    assert found["descriptors"] == ("1024 soft, 1048576 hard", "")
    assert found["transparent huge pages"] == ("madvise", "")
    assert found["memory available"] == ("976 MiB", "")
    assert found["processes and threads"] == ("unlimited soft, unlimited hard", "")
    assert [name for name, (_, advice) in found.items() if advice] == ["net.core.rmem_default"]


@pytest.mark.parametrize(
    ("name", "files", "advice"),
    [
        ("net.core.somaxconn", {}, "sysctl net.core.somaxconn=20000"),
        ("net.ipv4.ip_local_port_range", {}, "'1024 65535', and several addresses"),
        ("memory available", {}, "fibers need 1335 MiB: fewer connections"),
        ("kernel.threads-max", {}, "for threads and forks: sysctl kernel.threads-max=400000"),
        ("net.ipv4.tcp_syncookies", {"proc/sys/net/ipv4/tcp_syncookies": "0"}, "syncookies=1"),
        ("vm.overcommit_memory", {"proc/sys/vm/overcommit_memory": "2"}, "overcommit_memory=0"),
        (
            "transparent huge pages",
            {"sys/kernel/mm/transparent_hugepage/enabled": "[always] madvise never"},
            "write 'madvise'",
        ),
        ("memory available", {"sys/fs/cgroup/memory.max": "1000"}, "fewer connections"),
    ],
)
def test_what_to_change_for_two_hundred_thousand(
    tmp_path: Path, name: str, files: dict[str, str], advice: str
) -> None:
    assert advice in examined(tmp_path, 200_000, files)[name][1]


def test_limits_of_the_process(tmp_path: Path) -> None:
    found = examined(tmp_path, 10_000, NOFILE=(1024, 4096), NPROC=(100, 100))
    assert found["descriptors"][1].startswith("LimitNOFILE=12501, or ")
    assert found["processes and threads"][1] == "for threads and forks: LimitNPROC=20000"


def test_what_the_system_does_not_say_is_left_out(tmp_path: Path) -> None:
    found = examined(tmp_path, 1, {"sys/fs/cgroup/memory.max": "max"})
    assert found["memory available"][0] == "976 MiB"
    machine = Machine(root=tmp_path / "nothing")
    names = [finding.name for finding in machine.examine(1)]
    assert names == ["TLS library", "descriptors", "processes and threads", "stack of a thread"]
