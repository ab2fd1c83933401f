"""`TLS`: a server's certificates and requirements for its handshakes, renewable while it runs.

A server keeps one `TLS`, and makes the `TLSSocket` of each connection by `wrap`.
"""

import logging
import os
import socket
import ssl
import threading
from collections.abc import Mapping, Sequence
from typing import Literal, Self

from everserve.errors import TLSConfigError
from everserve.sockets.tls.contexts import (
    CLIENT_CERTIFICATE,
    VERSIONS,
    KeyPair,
    Password,
    Settings,
    make_context,
)
from everserve.sockets.tls.names import canonical, select_by_name
from everserve.sockets.tls.records import Records
from everserve.sockets.tls.sockets import TLSSocket
from everserve.sockets.tls.validity import validity_fault
from everserve.sockets.tls.wire import Lock

__all__ = ["TLS"]

Path = str | os.PathLike[str]
logger = logging.getLogger("everserve")

Stamp = tuple[int, int, int] | None


class TLS:
    """A server's side of TLS, made from files: versions 1.2 and 1.3, forward secrecy, no renegotiation.

    ==================== ============================================================================
    `certfile`           PEM: the server's certificate, then those between it and the authority
    `keyfile`            PEM: its private key; None (default): it is in `certfile`
    `client_ca`          PEM file, or a directory of `openssl rehash`: who signs clients' certificates
    `client_certificate` "none", "optional" or "required"; the default is "required" with `client_ca`,
                         else "none". "optional": a client without one is accepted, a bad one is not
    `alpn`               protocols (RFC 7301), in the server's order of preference. With a client that
                         shares none of them, `selected_alpn_protocol()` is None
    `sni`                further certificates by host name: ``{"*.example.org": (cert, key)}``.
                         A wildcard is one label. Other names, and clients without SNI, get `certfile`
    `minimum`            "1.2" (default) or "1.3"
    `ciphers`            OpenSSL's cipher list for TLS 1.2; those of TLS 1.3 are all enabled
    `session_tickets`    tickets after a full handshake of TLS 1.3 (RFC 8446, 4.6.1): how many
                         connections a client can resume at once. 1 by default, as each brings the
                         next; a browser takes more, and each costs a twentieth of the handshake.
                         0: none: each connection does a full handshake. This needs `minimum="1.3"`, as
                         OpenSSL resumes sessions of TLS 1.2 without tickets too. The keys of tickets
                         belong to the context: a reload or another process makes new ones
    `password`           of encrypted keys: text, or a callable that gives it
    ==================== ============================================================================

    Everything takes effect with the next connection. Safe to use from any thread.

    Errors: `TLSConfigError` (a ValueError), in one line, for an invalid option, and for a file that
    is missing, unreadable, or does not belong to the other.
    """

    __slots__ = ("_context", "_reloading", "_settings", "_stamps")

    _settings: Settings | None
    _context: ssl.SSLContext
    _stamps: dict[str, Stamp]

    def __init__(
        self,
        certfile: Path,
        keyfile: Path | None = None,
        *,
        client_ca: Path | None = None,
        client_certificate: Literal["none", "optional", "required"] | None = None,
        alpn: Sequence[str] = (),
        sni: Mapping[str, tuple[Path, Path | None]] | None = None,
        minimum: Literal["1.2", "1.3"] = "1.2",
        ciphers: str | None = None,
        session_tickets: int = 1,
        password: Password | None = None,
    ) -> None:
        wanted = client_certificate or ("none" if client_ca is None else "required")
        _check_client_certificate(wanted, client_ca)
        _check_versions(minimum, session_tickets)
        self._settings = Settings(
            pair=_pair((certfile, keyfile)),
            sni=_checked_names(sni or {}),
            client_ca=None if client_ca is None else _absolute(client_ca),
            client_certificate=wanted,
            alpn=_checked_protocols(alpn),
            minimum=minimum,
            ciphers=ciphers,
            session_tickets=session_tickets,
            password=password,
        )
        self._reloading = threading.Lock()
        self._load(self._settings)

    @classmethod
    def of(cls, context: ssl.SSLContext) -> Self:
        """Use a context that the caller has made, as it is; it is not copied.

        `reload` is refused, as the files are not known: call the context's `load_cert_chain` instead,
        which also takes effect with the next connection.

        Errors: `TLSConfigError` for a context that was made for clients.
        """
        if context.protocol == ssl.PROTOCOL_TLS_CLIENT:
            raise TLSConfigError(
                "a context for clients: a server's is SSLContext(PROTOCOL_TLS_SERVER)"
            )
        self = cls.__new__(cls)
        self._settings = None
        self._reloading = threading.Lock()
        self._stamps = {}
        self._context = context
        return self

    def __repr__(self) -> str:
        return (
            f"TLS.of({self._context!r})" if self._settings is None else f"TLS({self._settings!r})"
        )

    @property
    def context(self) -> ssl.SSLContext:
        """What new connections use now. A reload replaces it."""
        return self._context

    @property
    def files(self) -> tuple[str, ...]:
        """The paths of all files that are read; empty for a context made by the caller."""
        return () if self._settings is None else self._settings.files

    def reload(self) -> None:
        """Read all files again: new connections use what they hold, open ones keep what they have.

        All or nothing: on any error the old context stays in use.

        Errors: `TLSConfigError`, as of the constructor; and for a context made by the caller.
        """
        if self._settings is None:
            raise TLSConfigError(
                "a ready SSLContext cannot be reloaded, its files are unknown:"
                " give TLS(certfile, keyfile), or call the context's load_cert_chain()"
            )
        with self._reloading:
            self._load(self._settings)

    def changed(self) -> bool:
        """Whether a file has changed since the last load, or the last attempt.

        Compares time, size and inode by one stat(2) for each file: some microseconds, and nothing is
        read. Call this at intervals, and `reload` when it is True: a broken file is then tried once,
        not each time.
        """
        return any(_stamp(path) != seen for path, seen in self._stamps.items())

    def wrap(
        self,
        inner: socket.socket,
        *,
        initial: bytes = b"",
        suppress_ragged_eofs: bool = True,
        write_lock: Lock | None = None,
        records: type[Records] = Records,
        kind: type[TLSSocket] = TLSSocket,
    ) -> TLSSocket:
        """The server's side of TLS over `inner`, before its handshake; see `TLSSocket`."""
        return kind(
            inner,
            self._context,
            initial=initial,
            suppress_ragged_eofs=suppress_ragged_eofs,
            write_lock=write_lock,
            records=records,
        )

    def _load(self, settings: Settings) -> None:
        # Before the files are read: a change in the meantime is then seen as one.
        self._stamps = {path: _stamp(path) for path in settings.files}
        by_pair = {pair: make_context(settings, pair) for pair in set(settings.sni.values())}
        default = make_context(settings, settings.pair)
        select_by_name(default, {name: by_pair[pair] for name, pair in settings.sni.items()})
        self._context = default
        for certfile in dict.fromkeys(pair.certfile for pair in (settings.pair, *by_pair)):
            fault = validity_fault(certfile)
            if fault is not None:
                logger.warning(fault)


def _stamp(path: str) -> Stamp:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _pair(paths: tuple[Path, Path | None]) -> KeyPair:
    certfile, keyfile = paths
    return KeyPair(_absolute(certfile), None if keyfile is None else _absolute(keyfile))


def _absolute(path: Path) -> str:
    """So that a reload finds the file although the process has changed its directory."""
    return os.path.abspath(os.fspath(path))


def _check_choice(option: str, value: str, choices: Mapping[str, object]) -> None:
    if value not in choices:
        raise TLSConfigError(f"{option}={value!r}: one of {', '.join(map(repr, choices))}")


def _check_client_certificate(wanted: str, client_ca: Path | None) -> None:
    _check_choice("client_certificate", wanted, CLIENT_CERTIFICATE)
    if wanted != "none" and client_ca is None:
        raise TLSConfigError(f"client_certificate={wanted!r} needs client_ca=, their authority")


def _check_versions(minimum: str, session_tickets: int) -> None:
    _check_choice("minimum", minimum, VERSIONS)
    if session_tickets < 0:
        raise TLSConfigError(f"session_tickets={session_tickets}: at least 0")
    if session_tickets == 0 and minimum != "1.3":
        raise TLSConfigError(
            'session_tickets=0 needs minimum="1.3": '
            "sessions of TLS 1.2 are resumed without tickets too"
        )


def _checked_names(sni: Mapping[str, tuple[Path, Path | None]]) -> dict[str, KeyPair]:
    pairs = {}
    for name, paths in sni.items():
        try:
            pairs[canonical(name)] = _pair(paths)
        except (TypeError, ValueError) as error:
            raise TLSConfigError(f"sni={{{name!r}: {paths!r}}}: {error}") from None
    return pairs


def _checked_protocols(alpn: Sequence[str]) -> tuple[str, ...]:
    if isinstance(alpn, str):
        raise TLSConfigError(f"alpn={alpn!r}: a sequence of names, as ({alpn!r},)")
    for name in alpn:
        if not name.isascii() or not 1 <= len(name) <= 255:
            raise TLSConfigError(
                f"alpn={name!r}: 1 to 255 ASCII characters (RFC 7301, section 3.1)"
            )
    return tuple(alpn)
