"""``sockets.tls.config``: certificates and requirements of a server, and their renewal."""

from __future__ import annotations

import os
import shutil
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.certificates import Certificates
from tests.clients import Background
from tests.sockets.tls.peers import handshake_with, peers, refusal

from everserve.errors import EverserveError, TLSConfigError
from everserve.sockets.tls import TLS


@pytest.fixture
def trusting(certificates: Certificates) -> ssl.SSLContext:
    return certificates.client_context()


@pytest.fixture
def files(certificates: Certificates, tmp_path: Path) -> tuple[Path, Path]:
    """A certificate and its key that a test may replace."""
    return install(certificates.server, tmp_path)


def install(pair: Any, folder: Path) -> tuple[Path, Path]:
    """Put a certificate and its key in the place of others, as renewal does: by renaming."""
    for source, name in zip(pair, ("cert.pem", "key.pem"), strict=True):
        shutil.copy(source, folder / f"{name}.new")
        os.replace(folder / f"{name}.new", folder / name)
    return folder / "cert.pem", folder / "key.pem"


def test_modern_defaults(tls: TLS) -> None:
    context = tls.context
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert context.options & ssl.OP_NO_COMPRESSION
    assert context.options & ssl.OP_CIPHER_SERVER_PREFERENCE
    assert context.verify_mode == ssl.CERT_NONE
    assert context.num_tickets == 1
    names = [cipher["name"] for cipher in context.get_ciphers()]
    assert all(name.startswith(("TLS_", "ECDHE-")) for name in names)
    assert all("GCM" in name or "CHACHA20" in name for name in names)


def test_a_client_gets_the_certificate(tls: TLS, trusting: ssl.SSLContext) -> None:
    seen = handshake_with(tls, trusting)
    assert seen["version"] == "TLSv1.3"
    assert "localhost" in seen["names"]


def test_one_file_may_hold_both(certificates: Certificates, tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(b"".join(path.read_bytes() for path in certificates.server))
    tls = TLS(both)
    assert tls.files == (str(both),)
    assert handshake_with(tls, certificates.client_context())


def test_minimum(certificates: Certificates, trusting: ssl.SSLContext) -> None:
    trusting.maximum_version = ssl.TLSVersion.TLSv1_2
    assert handshake_with(TLS(*certificates.server), trusting)["version"] == "TLSv1.2"
    error = refusal(TLS(*certificates.server, minimum="1.3"), trusting)
    assert isinstance(error, ssl.SSLError)
    assert error.reason == "UNSUPPORTED_PROTOCOL"


def test_ciphers(certificates: Certificates, trusting: ssl.SSLContext) -> None:
    trusting.maximum_version = ssl.TLSVersion.TLSv1_2
    tls = TLS(*certificates.server, ciphers="ECDHE+CHACHA20")
    with peers(tls, trusting) as (server, client):
        assert client.cipher() == server.cipher()
        assert "CHACHA20" in client.cipher()[0]


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [(["http/1.1", "h2"], "h2"), (["http/1.1"], "http/1.1"), (["smtp"], None), ([], None)],
)
def test_alpn_is_the_servers_choice(
    certificates: Certificates, trusting: ssl.SSLContext, offered: list[str], chosen: str | None
) -> None:
    tls = TLS(*certificates.server, alpn=["h2", "http/1.1"])
    if offered:
        trusting.set_alpn_protocols(offered)
    with peers(tls, trusting) as (server, client):
        assert client.selected_alpn_protocol() == chosen
        assert server.selected_alpn_protocol() == chosen


# --- SNI ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ("one.example.org", "one.example.org"),
        ("ONE.example.org", "one.example.org"),
        ("two.example.org", "*.example.org"),
        ("deep.two.example.org", "localhost"),
        ("example.org", "localhost"),
        ("unknown.test", "localhost"),
        (None, "localhost"),
    ],
)
def test_the_name_chooses_the_certificate(
    certificates: Certificates, trusting: ssl.SSLContext, asked: str | None, shown: str
) -> None:
    tls = TLS(
        *certificates.server,
        sni={"*.Example.org": certificates.wildcard, "one.example.org.": certificates.named},
        alpn=["echo"],
    )
    trusting.check_hostname = False
    trusting.set_alpn_protocols(["echo"])
    with peers(tls, trusting, name=asked) as (server, client):
        names = [value for _kind, value in client.getpeercert()["subjectAltName"]]
        assert shown in names
        assert server.server_hostname == (asked and asked.lower())
        assert server.selected_alpn_protocol() == "echo"


def test_client_certificates_count_for_every_name(certificates: Certificates) -> None:
    tls = TLS(
        *certificates.server,
        sni={"one.example.org": certificates.named},
        client_ca=certificates.authority,
    )
    assert handshake_with(tls, certificates.client_context(certificates.client), "one.example.org")
    refused = refusal(tls, certificates.client_context(), "one.example.org")
    assert "PEER_DID_NOT_RETURN_A_CERTIFICATE" in str(refused)


# --- client certificates -----------------------------------------------------------------------


def test_required_is_the_default_with_an_authority(certificates: Certificates) -> None:
    tls = TLS(*certificates.server, client_ca=certificates.authority)
    with peers(tls, certificates.client_context(certificates.client)) as (server, _client):
        assert server.identity().common_name == "alice"
    refused = refusal(tls, certificates.client_context())
    assert "PEER_DID_NOT_RETURN_A_CERTIFICATE" in str(refused)


@pytest.mark.parametrize("which", ["expired_client", "strange_client"])
@pytest.mark.parametrize("wanted", ["optional", "required"])
def test_a_bad_client_certificate_is_refused(
    certificates: Certificates, which: str, wanted: Any
) -> None:
    tls = TLS(*certificates.server, client_ca=certificates.authority, client_certificate=wanted)
    context = certificates.client_context(getattr(certificates, which))
    assert isinstance(refusal(tls, context), ssl.SSLCertVerificationError)


def test_optional_lets_a_client_without_one_in(certificates: Certificates) -> None:
    tls = TLS(*certificates.server, client_ca=certificates.authority, client_certificate="optional")
    with peers(tls, certificates.client_context()) as (server, _client):
        assert server.getpeercert() is None
        assert not server.identity().verified
    with peers(tls, certificates.client_context(certificates.client)) as (server, _client):
        assert server.identity().verified


def test_none_does_not_ask(certificates: Certificates) -> None:
    tls = TLS(*certificates.server, client_ca=certificates.authority, client_certificate="none")
    with peers(tls, certificates.client_context(certificates.client)) as (server, _client):
        assert server.getpeercert(binary_form=True) is None


def test_authorities_may_be_a_directory(certificates: Certificates, tmp_path: Path) -> None:
    assert TLS(*certificates.server, client_ca=tmp_path).files[-1] == str(tmp_path)


# --- sessions ----------------------------------------------------------------------------------


def resumed(tls: TLS, context: ssl.SSLContext) -> bool | None:
    """Whether a second connection resumes the session of a first."""
    with peers(tls, context) as (server, client):
        server.sendall(b"x")  # TLS 1.3: its tickets come with, or before, the first data
        assert client.recv(1) == b"x"
        session = client.session
    with peers(tls, context, session=session) as (server, client):
        assert server.session_reused == client.session_reused
        return server.session_reused


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tickets(
    certificates: Certificates, trusting: ssl.SSLContext, version: ssl.TLSVersion
) -> None:
    trusting.maximum_version = version
    assert resumed(TLS(*certificates.server), trusting)
    if version == ssl.TLSVersion.TLSv1_3:
        tls = TLS(*certificates.server, session_tickets=0, minimum="1.3")
        assert not resumed(tls, trusting)


# --- what cannot be used ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"minimum": "1.1"}, "minimum='1.1': one of '1.2', '1.3'"),
        ({"client_certificate": "maybe"}, "one of 'none', 'optional', 'required'"),
        ({"client_certificate": "required"}, "needs client_ca="),
        ({"session_tickets": -1}, "at least 0"),
        ({"session_tickets": 0}, 'needs minimum="1.3"'),
        ({"ciphers": "ROT13"}, "ciphers='ROT13'"),
        ({"alpn": "h2"}, "a sequence of names"),
        ({"alpn": [""]}, "1 to 255"),
        ({"alpn": ["é"]}, "1 to 255"),
        ({"sni": {"a.*.org": ("c", "k")}}, "whole first label"),
        ({"sni": {"": ("c", "k")}}, "whole first label"),
        ({"sni": {"a.org": "cert.pem"}}, "a.org"),
        ({"sni": {"a.org": ("/nowhere.pem", None)}}, "/nowhere.pem: No such file"),
        ({"client_ca": "/nowhere.pem"}, "/nowhere.pem: No such file"),
    ],
)
def test_invalid_options(certificates: Certificates, options: dict[str, Any], message: str) -> None:
    with pytest.raises(TLSConfigError) as caught:
        TLS(*certificates.server, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, EverserveError)
    assert isinstance(caught.value, ValueError)


def test_files_that_cannot_be_used(certificates: Certificates, tmp_path: Path) -> None:
    cert, key = certificates.server
    no_pem = tmp_path / "no_pem.pem"
    no_pem.write_text("no PEM at all")
    for arguments, message in [
        ((tmp_path / "none.pem", key), "none.pem: No such file"),
        ((cert, tmp_path / "none.key"), "none.key: No such file"),
        ((tmp_path, key), "Is a directory"),
        ((no_pem, key), "no_pem.pem: no certificate can be read"),
        ((cert, no_pem), "no_pem.pem: no private key can be read"),
        ((cert,), "server.pem: no private key can be read"),
        ((cert, certificates.renewed.key), "renewed.key: the key does not belong to"),
    ]:
        with pytest.raises(TLSConfigError, match=message):
            TLS(*arguments)
    with pytest.raises(TLSConfigError, match=r"client_ca=.*no certificate"):
        TLS(cert, key, client_ca=no_pem)


@pytest.fixture
def encrypted(certificates: Certificates, tmp_path: Path) -> Path:
    """The server's key, encrypted with "sesame"."""
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

    loaded = serialization.load_pem_private_key(certificates.server.key.read_bytes(), None)
    encrypted = tmp_path / "encrypted.key"
    encrypted.write_bytes(
        loaded.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"sesame"),
        )
    )
    return encrypted


def test_encrypted_keys_need_their_password(certificates: Certificates, encrypted: Path) -> None:
    cert = certificates.server.cert
    assert TLS(cert, encrypted, password="sesame")
    assert TLS(cert, encrypted, password=lambda: b"sesame")
    assert "sesame" not in repr(TLS(cert, encrypted, password="sesame"))
    with pytest.raises(TLSConfigError, match="the key is encrypted, give its password="):
        TLS(cert, encrypted)
    with pytest.raises(TLSConfigError, match=r"password= does not open this key$"):
        TLS(cert, encrypted, password="wrong")
    with pytest.raises(TLSConfigError, match=r"password= failed: RuntimeError\('no vault'\)$"):
        TLS(cert, encrypted, password=_no_vault)
    for unfit in (lambda: None, 5, "x" * 2000):
        with pytest.raises(TLSConfigError, match=r"password= must be text"):
            TLS(cert, encrypted, password=unfit)  # type: ignore[arg-type]


def _no_vault() -> str:
    raise RuntimeError("no vault")


def test_a_password_that_cannot_be_had_at_a_reload_leaves_the_old_context(
    certificates: Certificates, encrypted: Path
) -> None:
    answers = ["sesame"]
    tls = TLS(certificates.server.cert, encrypted, password=lambda: answers.pop())
    context = tls.context
    with pytest.raises(TLSConfigError, match="password= failed: IndexError"):
        tls.reload()
    assert tls.context is context


# --- renewal -----------------------------------------------------------------------------------


def test_reload_is_for_new_connections(
    certificates: Certificates, trusting: ssl.SSLContext, files: tuple[Path, Path]
) -> None:
    tls = TLS(*files)
    with peers(tls, trusting) as (server, client):
        before = client.getpeercert()["serialNumber"]
        install(certificates.renewed, files[0].parent)
        tls.reload()
        after = handshake_with(tls, trusting)["serial"]
        assert after != before
        server.sendall(b"still here")
        assert client.recv(100) == b"still here"


def test_a_broken_renewal_leaves_the_old_one(
    certificates: Certificates, trusting: ssl.SSLContext, files: tuple[Path, Path]
) -> None:
    tls = TLS(*files)
    before = handshake_with(tls, trusting)
    old = tls.context
    shutil.copy(certificates.renewed.cert, files[0])
    with pytest.raises(TLSConfigError, match="the key does not belong to the certificate"):
        tls.reload()
    files[0].write_text("half a file")
    with pytest.raises(TLSConfigError, match="no certificate can be read"):
        tls.reload()
    files[0].unlink()
    with pytest.raises(TLSConfigError, match="No such file"):
        tls.reload()
    assert tls.context is old
    assert handshake_with(tls, trusting) == before
    install(certificates.renewed, files[0].parent)
    tls.reload()
    assert handshake_with(tls, trusting) != before


def test_reload_renews_every_name(
    certificates: Certificates, trusting: ssl.SSLContext, files: tuple[Path, Path]
) -> None:
    trusting.check_hostname = False
    tls = TLS(*certificates.server, sni={"one.example.org": files})
    before = handshake_with(tls, trusting, "one.example.org")["serial"]
    install(certificates.renewed, files[0].parent)
    tls.reload()
    assert handshake_with(tls, trusting, "one.example.org")["serial"] != before


def test_changed_tells_once_a_change(certificates: Certificates, files: tuple[Path, Path]) -> None:
    tls = TLS(*files, client_ca=certificates.authority)
    assert len(tls.files) == 3
    assert not tls.changed()
    files[1].unlink()
    assert tls.changed()
    with pytest.raises(TLSConfigError):
        tls.reload()
    assert not tls.changed(), "what was tried and failed is not tried again and again"
    install(certificates.renewed, files[0].parent)
    assert tls.changed()
    tls.reload()
    assert not tls.changed()


def test_reload_beside_handshakes(
    certificates: Certificates, trusting: ssl.SSLContext, files: tuple[Path, Path]
) -> None:
    tls = TLS(*files)
    done = threading.Event()

    def renew() -> int:
        times = 0
        while not done.is_set():
            tls.reload()
            times += 1
        return times

    renewing = [Background(renew) for _ in range(2)]
    for _ in range(10):
        assert handshake_with(tls, trusting)
    done.set()
    assert all(thread.result() > 0 for thread in renewing)


def test_a_change_of_directory_does_not_matter(
    certificates: Certificates,
    files: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(files[0].parent)
    tls = TLS("cert.pem", "key.pem", client_ca=certificates.authority)
    monkeypatch.chdir("/")
    tls.reload()


# --- a context of the user's ---------------------------------------------------------------------


def ready_context(certificates: Certificates) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificates.server)
    return context


def test_a_ready_context_is_taken_as_it_is(
    certificates: Certificates, trusting: ssl.SSLContext
) -> None:
    context = ready_context(certificates)
    tls = TLS.of(context)
    assert tls.context is context
    assert "TLS.of" in repr(tls)
    assert tls.files == ()
    assert not tls.changed()
    with peers(tls, trusting) as (server, _client):
        assert server.server_hostname == "localhost"
    assert context.sni_callback is None
    with pytest.raises(TLSConfigError, match="a ready SSLContext cannot be reloaded"):
        tls.reload()


def test_the_users_own_sni_callback_stays(
    certificates: Certificates, trusting: ssl.SSLContext
) -> None:
    context = ready_context(certificates)
    asked: list[str | None] = []
    context.sni_callback = lambda _tls, name, _context: asked.append(name)
    with peers(TLS.of(context), trusting) as (server, _client):
        assert server.server_hostname == "localhost"
    assert asked == ["localhost"]


def test_a_context_for_clients_is_refused() -> None:
    with pytest.raises(TLSConfigError, match="a context for clients"):
        TLS.of(ssl.create_default_context())


def test_repr(tls: TLS, certificates: Certificates) -> None:
    assert str(certificates.server.cert) in repr(tls)
