"""SSLInfo: a proxy's report on its client's TLS, read and written."""

import pytest
from hypothesis import given
from tests.wire.headers import ssl, tlv

from everserve.errors import ProxyHeaderError
from everserve.wire.sslinfo import SSLClient, SSLInfo
from everserve.wire.tlvs import TLVType

EVERYTHING = SSLInfo(
    SSLClient.SSL | SSLClient.CERT_CONN,
    0,
    (
        (TLVType.SSL_VERSION, b"TLSv1.3"),
        (TLVType.SSL_CN, "Jürgen".encode()),
        (TLVType.SSL_CIPHER, b"ECDHE-RSA-AES128-GCM-SHA256"),
        (TLVType.SSL_SIG_ALG, b"RSA-SHA256"),
        (TLVType.SSL_KEY_ALG, b"RSA2048"),
        (TLVType.SSL_GROUP, b"secp256r1"),
        (TLVType.SSL_SIG_SCHEME, b"rsa_pss_rsae_sha256"),
        (TLVType.SSL_CLIENT_CERT, b"\x30\x82\xff"),
    ),
)


def test_every_part_is_a_property() -> None:
    assert EVERYTHING.secure
    assert EVERYTHING.has_certificate
    assert EVERYTHING.verified
    assert EVERYTHING.version == "TLSv1.3"
    assert EVERYTHING.common_name == "Jürgen"
    assert EVERYTHING.cipher == "ECDHE-RSA-AES128-GCM-SHA256"
    assert EVERYTHING.signature_algorithm == "RSA-SHA256"
    assert EVERYTHING.key_algorithm == "RSA2048"
    assert EVERYTHING.group == "secp256r1"
    assert EVERYTHING.signature_scheme == "rsa_pss_rsae_sha256"
    assert EVERYTHING.client_certificate == b"\x30\x82\xff"


def test_the_form_is_a_byte_of_flags_four_of_verify_and_vectors() -> None:
    value = b"\x01\x00\x00\x00\x12" + tlv(0x21, b"TLSv1.2")
    info = SSLInfo.decode(value)
    assert info == SSLInfo(SSLClient.SSL, 0x12, ((0x21, b"TLSv1.2"),))
    assert info.encode() == value
    assert info.cipher is None
    assert info.client_certificate is None


@pytest.mark.parametrize(
    ("client", "verify", "has_certificate", "verified"),
    [
        (0x00, 0, False, False),
        (0x01, 0, False, False),  # what HAProxy sends where there is no certificate
        (0x01, 1, False, False),
        (0x03, 0, True, True),
        (0x05, 0, True, True),
        (0x07, 0, True, True),
        (0x07, 10, True, False),
        (0x02, 0, True, False),
        (0xF8, 0, False, False),
    ],
)
def test_verified_needs_a_certificate(
    client: int, verify: int, has_certificate: bool, verified: bool
) -> None:
    info = SSLInfo.decode(bytes([client]) + verify.to_bytes(4, "big"))
    assert (info.has_certificate, info.verified) == (has_certificate, verified)
    assert info.encode()[0] == client


@given(ssl)
def test_an_encoded_value_decodes_to_an_equal_one(info: SSLInfo) -> None:
    assert SSLInfo.decode(info.encode()) == info


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "at least 5 bytes, not 0"),
        (b"\1\0\0\0", "at least 5 bytes, not 4"),
        (b"\1\0\0\0\0\x21", "needs 2 bytes more"),
        (b"\1\0\0\0\0" + tlv(0x21, b"\xff"), "SSL_VERSION is text in ascii"),
        (b"\1\0\0\0\0" + tlv(0x22, b"\xff"), "SSL_CN is text in utf-8"),
    ],
)
def test_what_cannot_be_read_is_refused(value: bytes, reason: str) -> None:
    with pytest.raises(ProxyHeaderError, match=reason):
        SSLInfo.decode(value)


@pytest.mark.parametrize(("client", "verify"), [(256, 0), (0, -1), (0, 2**32)])
def test_what_cannot_be_written_is_refused(client: int, verify: int) -> None:
    with pytest.raises(ProxyHeaderError, match="verify"):
        SSLInfo(SSLClient(client), verify)
