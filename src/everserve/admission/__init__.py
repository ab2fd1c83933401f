"""Between accept and handler: which connections are admitted, how many, how fast, and for how long.

The accept loop checks limits and access rules. The steps (PROXY header, TLS handshake, deadlines) run
where the request runs, in the order of ``admission_steps``.
"""

from everserve.admission.access import AccessRules, Networks
from everserve.admission.cancellation import CancelReason
from everserve.admission.control import OverloadPolicy
from everserve.admission.peer import Credentials, Peer

__all__ = ["AccessRules", "CancelReason", "Credentials", "Networks", "OverloadPolicy", "Peer"]
