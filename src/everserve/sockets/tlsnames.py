"""Which context answers for which host name (SNI: RFC 6066, section 3), wildcards included.

OpenSSL asks here in the middle of a handshake, and the name that the client gave is kept.
"""

import ssl
from collections.abc import Mapping

__all__ = ["NamedObject", "answer_names", "canonical"]


class NamedObject(ssl.SSLObject):
    """An `ssl.SSLObject` that keeps what its client asked for."""

    sni: str | None = None


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


def answer_names(context: ssl.SSLContext, others: Mapping[str, ssl.SSLContext]) -> None:
    """Let `context` hand over to the one of `others` that the client's name belongs to.

    An exact name wins over a wildcard, which stands for one label; a name that nobody has, or none
    at all, stays with `context`: a server that ends the handshake there would tell more than one
    that shows its default certificate, and clients without SNI could not come in.
    """

    def choose(tls: NamedObject, name: str | None, _context: ssl.SSLContext) -> None:
        if name is None:
            return
        tls.sni = name = name.rstrip(".").lower()
        found = others.get(name) or others.get("*." + name.partition(".")[2])
        if found is not None:
            tls.context = found

    context.sni_callback = choose  # type: ignore[assignment]
