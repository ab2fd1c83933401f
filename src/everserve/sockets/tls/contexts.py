"""Server contexts for `ssl`, made from files: modern defaults, errors explained.

`TLS` calls this with its settings when it is made and at each reload; `names` selects the context by
host name.
"""

import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field

from everserve.errors import TLSConfigError

__all__ = ["CLIENT_CERTIFICATE", "VERSIONS", "KeyPair", "Password", "Settings", "make_context"]

Password = str | bytes | Callable[[], str | bytes]

CLIENT_CERTIFICATE = {
    "none": ssl.CERT_NONE,
    "optional": ssl.CERT_OPTIONAL,
    "required": ssl.CERT_REQUIRED,
}
"""The certificate that a client has to send, by the option's value."""

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
"""The oldest version accepted, by the option's value; RFC 8996 forbids 1.0 and 1.1."""

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""TLS 1.2: forward secrecy and authenticated encryption only (RFC 9325, section 4.2)."""


_NOT_THE_PASSWORD = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH")
_LONGEST_PASSWORD = 1000
"""OpenSSL takes 1023 bytes (PEM_BUFSIZE), and `ssl` raises a plain ValueError for more."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate with its chain, and its private key, as paths of PEM files.

    `keyfile` None: the key is in `certfile` too.
    """

    certfile: str
    keyfile: str | None = None

    @property
    def files(self) -> tuple[str, ...]:
        return (self.certfile,) if self.keyfile is None else (self.certfile, self.keyfile)


@dataclass(frozen=True, slots=True)
class Settings:
    """All that a context is made from, of a valid form; `make_context` reads the files."""

    pair: KeyPair
    sni: dict[str, KeyPair] = field(default_factory=dict)
    client_ca: str | None = None
    client_certificate: str = "none"
    alpn: tuple[str, ...] = ()
    minimum: str = "1.2"
    ciphers: str | None = None
    session_tickets: int = 1
    password: Password | None = field(default=None, repr=False)

    @property
    def files(self) -> tuple[str, ...]:
        """Every path that is read, each once."""
        pairs = (self.pair, *self.sni.values())
        paths = [path for pair in pairs for path in pair.files]
        if self.client_ca is not None:
            paths.append(self.client_ca)
        return tuple(dict.fromkeys(paths))


def make_context(settings: Settings, pair: KeyPair) -> ssl.SSLContext:
    """Make a server's context that shows the certificate of `pair`.

    Errors: `TLSConfigError`, which names the file or the option.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = VERSIONS[settings.minimum]
    # Renegotiation (RFC 5246, 7.4.1.1) lets a client cost the server much for little;
    # compression reveals secrets by their length (RFC 9325, section 3.3).
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    _set_ciphers(context, settings.ciphers)
    context.num_tickets = settings.session_tickets
    if settings.alpn:
        context.set_alpn_protocols(list(settings.alpn))
    _load_pair(context, pair, settings.password)
    if settings.client_ca is not None:
        _load_authorities(context, settings.client_ca)
        context.verify_mode = CLIENT_CERTIFICATE[settings.client_certificate]
    return context


def _set_ciphers(context: ssl.SSLContext, ciphers: str | None) -> None:
    try:
        context.set_ciphers(CIPHERS if ciphers is None else ciphers)
    except ssl.SSLError:
        raise TLSConfigError(
            f"ciphers={ciphers!r}: OpenSSL knows no such cipher; its form is {CIPHERS!r}"
        ) from None


def _load_pair(context: ssl.SSLContext, pair: KeyPair, password: Password | None) -> None:
    for path in pair.files:
        _check_readable(path)
    keyfile = pair.keyfile or pair.certfile

    source = _PasswordSource(keyfile, password)
    try:
        context.load_cert_chain(pair.certfile, pair.keyfile, source)
    except ssl.SSLError as error:
        if source.given and error.reason not in _NOT_THE_PASSWORD:
            raise TLSConfigError(f"{keyfile}: password= does not open this key") from None
        raise TLSConfigError(_explain_pair(pair.certfile, keyfile, error)) from None
    except OSError as error:
        raise TLSConfigError(f"{pair.certfile}, {keyfile}: {error.strerror or error}") from None


class _PasswordSource:
    """The password of a key. OpenSSL calls this only where the key is encrypted."""

    def __init__(self, keyfile: str, password: Password | None) -> None:
        self._keyfile = keyfile
        self._password = password
        self.given = False

    def __call__(self) -> bytes:
        password = self._password
        if password is None:  # else OpenSSL would ask on the terminal, and wait for an answer
            raise TLSConfigError(
                f"{self._keyfile}: the key is encrypted, give its password= (--tls-password-file)"
            )
        if callable(password):
            try:
                password = password()
            except Exception as error:
                raise TLSConfigError(f"{self._keyfile}: password= failed: {error!r}") from error
        if isinstance(password, str):
            password = password.encode()
        if not isinstance(password, bytes) or len(password) > _LONGEST_PASSWORD:
            raise TLSConfigError(
                f"{self._keyfile}: password= must be text of at most {_LONGEST_PASSWORD} bytes"
            )
        self.given = True
        return password


def _explain_pair(certfile: str, keyfile: str, error: ssl.SSLError) -> str:
    if error.reason in ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"):
        return f"{keyfile}: the key does not belong to the certificate in {certfile}"
    if error.reason in ("EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL", "CA_MD_TOO_WEAK"):
        return f"{certfile}: {_reason(error)}, which OpenSSL's security level refuses"
    if not _certificate_reads(certfile):
        return f"{certfile}: no certificate can be read from it, PEM is expected ({_reason(error)})"
    return f"{keyfile}: no private key can be read from it, PEM is expected ({_reason(error)})"


def _certificate_reads(path: str) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except (OSError, ValueError):
        return False
    return True


def _load_authorities(context: ssl.SSLContext, path: str) -> None:
    """From a file of PEM certificates, or a directory as `openssl rehash` makes one."""
    try:
        if os.path.isdir(path):
            context.load_verify_locations(capath=path)
        else:
            _check_readable(path)
            context.load_verify_locations(cafile=path)
    except ssl.SSLError as error:
        raise TLSConfigError(
            f"client_ca={path!r}: no certificate can be read from it, PEM is expected"
            f" ({_reason(error)})"
        ) from None


def _check_readable(path: str) -> None:
    """Name the file that cannot be opened, which `ssl` does not."""
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise TLSConfigError(f"{path}: {error.strerror}") from None


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).replace("_", " ").lower()
