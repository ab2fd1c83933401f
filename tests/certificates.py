"""Throw-away certificates for tests: an authority, servers, clients, and some that are invalid.

`trustme` makes them, with keys on P-256, so that all of them take some milliseconds.
"""

from __future__ import annotations

import datetime
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import trustme

__all__ = ["Certificates", "Pair"]

_DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Pair:
    """A certificate with its chain, and its key: paths of PEM files. It unpacks as a pair."""

    cert: Path
    key: Path

    def __iter__(self) -> Iterator[Path]:
        return iter((self.cert, self.key))


class Certificates:
    """Certificates in `folder`. `authority` has signed all but those of `stranger`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._authority = trustme.CA()
        self._stranger = trustme.CA()
        self.authority = folder / "authority.pem"
        self._authority.cert_pem.write_to_path(self.authority)
        self.server = self.issue("server", "localhost", "127.0.0.1", "::1")
        self.renewed = self.issue("renewed", "localhost", "127.0.0.1", "::1")
        self.wrong_name = self.issue("wrong-name", "elsewhere.example")
        self.expired = self.issue("expired", "localhost", "127.0.0.1", expired=True)
        self.named = self.issue("named", "one.example.org")
        self.wildcard = self.issue("wildcard", "*.example.org")
        self.client = self.issue("client", "alice@example.org", common_name="alice")
        self.expired_client = self.issue("expired-client", "bob@example.org", expired=True)
        self.strange_client = self.issue("strange-client", "eve@example.org", stranger=True)

    def issue(
        self,
        file: str,
        *names: str,
        common_name: str | None = None,
        expired: bool = False,
        stranger: bool = False,
    ) -> Pair:
        """Sign a new certificate for `names`, and write it as `file`."""
        now = datetime.datetime.now(datetime.UTC)
        leaf = (self._stranger if stranger else self._authority).issue_cert(
            *names,
            common_name=common_name,
            not_before=now - 2 * _DAY,
            not_after=now - _DAY if expired else now + _DAY,
        )
        pair = Pair(self.folder / f"{file}.pem", self.folder / f"{file}.key")
        pair.cert.write_bytes(b"".join(part.bytes() for part in leaf.cert_chain_pems))
        leaf.private_key_pem.write_to_path(pair.key)
        return pair

    def client_context(self, pair: Pair | None = None) -> ssl.SSLContext:
        """A client context that trusts only `authority`, and sends `pair`."""
        context = ssl.create_default_context(cafile=str(self.authority))
        # Debian's Python 3.11.2 sets it: a stream that ends without close_notify would be whole.
        context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
        if pair is not None:
            context.load_cert_chain(*pair)
        return context
