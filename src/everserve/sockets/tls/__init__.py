"""TLS over a connected socket: what a server shows and asks for, and the socket that results."""

from everserve.sockets.tls.config import TLS
from everserve.sockets.tls.identity import TLSIdentity
from everserve.sockets.tls.sockets import TLSSocket

__all__ = ["TLS", "TLSIdentity", "TLSSocket"]
