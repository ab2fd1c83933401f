"""Between accept and handler: who may come in, how many, how fast, and how long it may take.

Limits and access are asked on the accept loop; the steps (PROXY header, TLS handshake, deadlines) run
where the request runs, in the order of ``steps``.
"""

from everserve.admission.access import Access, Networks
from everserve.admission.cancelling import Cancelled
from everserve.admission.peer import Credentials, Peer

__all__ = ["Access", "Cancelled", "Credentials", "Networks", "Peer"]
