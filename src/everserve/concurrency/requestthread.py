"""What a thread does with one request: shared by ``ThreadingMixIn`` and ``ThreadPoolMixIn``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from everserve.server.base import BaseServer as _Base
else:
    _Base = object

__all__ = ["RequestThreadMixIn"]


class RequestThreadMixIn(_Base):
    """The hook ``process_request_thread``."""

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Run in the thread: ``finish_request``, ``handle_error`` if it raised, ``shutdown_request``.

        What ``shutdown_request`` raises goes to ``handle_error`` too.
        """
        try:
            try:
                self.finish_request(request, client_address)
            except Exception:
                self.handle_error(request, client_address)
            finally:
                self.shutdown_request(request)
        except Exception:
            self.handle_error(request, client_address)
