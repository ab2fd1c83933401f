"""Between accept and handler: who may come in, how many, how fast, and how long it may take.

Limits and access are asked on the accept loop; the steps (PROXY header, TLS handshake, deadlines) run
where the request runs, in the order of
``admission_steps``.
"""

from everserve.admission.access import AccessRules, Networks
from everserve.admission.cancellation import CancelReason
from everserve.admission.control import OverloadPolicy
from everserve.admission.peer import Credentials, Peer

__all__ = ["AccessRules", "CancelReason", "Credentials", "Networks", "OverloadPolicy", "Peer"]
