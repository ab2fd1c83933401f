"""What a TLS connection can be asked: the methods of `ssl.SSLSocket` that only look.

`TLSSocket` inherits them. Those about the handshake say None, or raise ValueError, before it.
"""

import ssl
from typing import Any

from everserve.sockets.tls.identity import TLSIdentity
from everserve.sockets.layer import Layer

__all__ = ["TLSFacts"]


class TLSFacts(Layer):
    """Questions to OpenSSL. They may be asked after the connection's end, too."""

    __slots__ = ("_asked_name", "_context", "_tls", "server_side")

    _asked_name: str | None

    _context: ssl.SSLContext
    _tls: ssl.SSLObject

    server_side: bool

    def identity(self) -> TLSIdentity:
        """Who the peer is, and what was agreed on; read anew at each call.

        Errors: ValueError before the handshake.
        """
        return TLSIdentity.of(self._tls, self.server_hostname)

    @property
    def server_hostname(self) -> str | None:
        """The host name that the client asked for (SNI); None where it gave none."""
        return self._asked_name if self.server_side else self._tls.server_hostname

    @property
    def context(self) -> ssl.SSLContext:
        """What the connection was made with; the one of the client's host name, where that has one."""
        return self._tls.context

    @property
    def session(self) -> ssl.SSLSession | None:
        return self._tls.session

    @property
    def session_reused(self) -> bool | None:
        return self._tls.session_reused

    def version(self) -> str | None:
        return self._tls.version()

    def cipher(self) -> tuple[str, str, int] | None:
        return self._tls.cipher()

    def shared_ciphers(self) -> list[tuple[str, str, int]] | None:
        return self._tls.shared_ciphers()

    def compression(self) -> str | None:
        return self._tls.compression()

    def selected_alpn_protocol(self) -> str | None:
        return self._tls.selected_alpn_protocol()

    def getpeercert(self, binary_form: bool = False) -> Any:
        """As `ssl.SSLSocket.getpeercert`: a dict, empty unless verified; DER; None without one."""
        return self._tls.getpeercert(binary_form)

    def get_channel_binding(self, cb_type: str = "tls-unique") -> bytes | None:
        return self._tls.get_channel_binding(cb_type)
