"""The preparations of a measurement: programs in C, and the certificate of the servers.

All files are in ``bin/``, and are rebuilt only when needed.
"""

import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tools import system

HERE = Path(__file__).parent
SERVERS = HERE / "servers"
LOAD = HERE / "load"
BINARIES = HERE / "bin"

#: The one cipher suite of TLS 1.3 that the load offers: the one that two OpenSSL choose by default.
CIPHER = "TLS_AES_256_GCM_SHA384"
TLS = f"TLS 1.3, {CIPHER}, X25519, certificates on ECDSA P-256"

_HEADERS = system.Package("libssl-dev", "the works over TLS")


class CannotStart(Exception):
    """A program is not available here: not installed, not built, not for this interpreter."""


# ---------------------------------------------------------------- C


def _compiler() -> str:
    compiler = os.environ.get("CC", "cc")
    if shutil.which(compiler) is None:
        raise CannotStart(f"there is no C compiler {compiler!r}: set CC")
    return compiler


def compiled(name: str, sources: Sequence[Path], *libraries: str) -> Path:
    """The binary of C sources, built when it is missing or older than one of their folder."""
    binary = BINARIES / name
    newest = max(path.stat().st_mtime for path in sources[0].parent.glob("*.[ch]"))
    if binary.is_file() and binary.stat().st_mtime > newest:
        return binary
    BINARIES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BINARIES) as folder:
        fresh = Path(folder, name)
        command = [_compiler(), "-O2", "-Wall", "-o", str(fresh), *map(str, sources), *libraries]
        built = subprocess.run(command, capture_output=True, text=True, check=False)
        if built.returncode:
            raise CannotStart(f"{name} does not compile: {built.stderr.strip()}")
        return fresh.replace(binary)  # atomic, as other processes may be running it


def compiled_c(program: Path) -> Path:
    """A server in C."""
    return compiled(program.stem, [program])


def compiled_go(program: Path) -> Path:
    """A server in Go, built when it is missing or older than its source."""
    binary = BINARIES / program.stem
    if binary.is_file() and binary.stat().st_mtime > program.stat().st_mtime:
        return binary
    if shutil.which("go") is None:
        raise CannotStart("there is no go: apt-get install golang-go")
    BINARIES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BINARIES) as folder:
        fresh = Path(folder, program.stem)
        command = ["go", "build", "-o", str(fresh), str(program)]
        own = {"GOCACHE": str(Path(folder, "cache")), "GO111MODULE": "off", "CGO_ENABLED": "0"}
        built = subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, **own}
        )
        if built.returncode:
            raise CannotStart(f"{program.name} does not compile: {built.stderr.strip()}")
        return fresh.replace(binary)


def load(*, tls: bool = False) -> Path:
    """The load generator for cleartext, or the one for TLS 1.3."""
    left_out = ("tcp.c",) if tls else ("tls.c", "handshake.c")
    sources = sorted(source for source in LOAD.glob("*.c") if source.name not in left_out)
    if not tls:
        return compiled("load", sources)
    if not has_headers():
        raise CannotStart("openssl/ssl.h is missing: apt-get install libssl-dev")
    return compiled("load-tls", sources, "-lssl", "-lcrypto")


def has_headers() -> bool:
    """True if the C compiler finds OpenSSL's headers."""
    command = [_compiler(), "-E", "-"]
    source = "#include <openssl/ssl.h>\n"
    return not subprocess.run(command, input=source, text=True, capture_output=True).returncode


def install_headers() -> list[str]:
    """Install OpenSSL's headers if they are missing. Returns what is left out without them, and why."""
    return [] if has_headers() else system.complete([_HEADERS], may_install=True)


# ---------------------------------------------------------------- certificates


@functools.cache
def certificate() -> Path:
    """A PEM file with a key on ECDSA P-256 and its certificate, made for each run."""
    try:
        import trustme  # noqa: PLC0415 - only the works over TLS need it
    except ImportError:
        raise CannotStart("no certificate can be made: pip install trustme") from None
    BINARIES.mkdir(exist_ok=True)
    path = BINARIES / "server.pem"
    issued = trustme.CA().issue_cert("localhost", "127.0.0.1", key_type=trustme.KeyType.ECDSA)
    fresh = path.with_suffix(f".{os.getpid()}")
    issued.private_key_and_cert_chain_pem.write_to_path(fresh)
    return fresh.replace(path)
