"""The preparations of a measurement: C programs, rebuilt when stale, and a certificate."""

import os
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest
from benchmarks.programs import CannotStart

from benchmarks import programs

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")


@pytest.fixture
def binaries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for what is made."""
    monkeypatch.setattr(programs, "BINARIES", tmp_path / "bin")
    return tmp_path / "bin"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    source = tmp_path / "answer.c"
    source.write_text("int main(void) { return 42; }\n")
    return source


@needs_compiler
@pytest.mark.usefixtures("binaries")
def test_a_program_is_rebuilt_when_a_source_is_newer(source: Path) -> None:
    binary = programs.compiled("answer", [source])
    assert subprocess.run([binary], check=False).returncode == 42
    built = binary.stat().st_ino
    os.utime(source, (0, 0))
    assert programs.compiled("answer", [source]).stat().st_ino == built
    header = source.with_name("answer.h")
    header.touch()
    os.utime(header, (binary.stat().st_mtime + 1,) * 2)
    assert programs.compiled("answer", [source]).stat().st_ino != built


@needs_compiler
def test_a_program_that_does_not_compile_is_reported(source: Path, binaries: Path) -> None:
    source.write_text("int main(void) { return answer; }\n")
    with pytest.raises(CannotStart, match="answer does not compile"):
        programs.compiled("answer", [source])
    assert list(binaries.iterdir()) == []


def test_a_missing_compiler_is_reported(
    monkeypatch: pytest.MonkeyPatch, binaries: Path, source: Path
) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(CannotStart, match="set CC"):
        programs.compiled("answer", [source])


def test_missing_headers_are_reported_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "has_headers", lambda: False)
    with pytest.raises(
        CannotStart, match=r"^openssl/ssl\.h is missing: apt-get install libssl-dev$"
    ):
        programs.load(tls=True)


def test_missing_headers_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def complete(packages: list[programs.system.Package], may_install: bool) -> list[str]:
        asked.extend(package.name for package in packages)
        return [programs.system.left_out(package, "only root may") for package in packages]

    monkeypatch.setattr(programs.system, "complete", complete)
    monkeypatch.setattr(programs, "has_headers", lambda: False)
    assert programs.install_headers() == [
        "the works over TLS: libssl-dev is not installed (only root may)"
    ]
    assert asked == ["libssl-dev"]


def test_nothing_is_installed_where_headers_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "has_headers", lambda: True)
    monkeypatch.delattr(programs.system, "complete")
    assert programs.install_headers() == []


@pytest.mark.usefixtures("binaries")
def test_the_certificate_is_one_file_for_all() -> None:
    programs.certificate.cache_clear()
    try:
        path = programs.certificate()
        assert programs.certificate() == path
    finally:
        programs.certificate.cache_clear()
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(path)
    assert path.read_text().startswith("-----BEGIN EC PRIVATE KEY-----")
    assert [file.name for file in path.parent.iterdir()] == ["server.pem"]
