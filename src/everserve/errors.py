"""The whole tree of everserve's own exceptions, and its one warning.

Each also inherits the built-in that a caller of ``socketserver`` would catch. Errors of the operating
system (a port in use, no permission) stay the ``OSError`` they are, with the address in ``filename``.
"""

__all__ = [
    "AddressError",
    "AlreadyServingError",
    "EngineUnavailableError",
    "EverserveError",
    "FiberTimeout",
    "FrameError",
    "HandlerError",
    "HandshakeError",
    "HubError",
    "LineTooLong",
    "LostWorkerError",
    "MistakeWarning",
    "NoReplyAddressError",
    "OptionError",
    "ProxyHeaderError",
    "RemoteError",
    "ServerClosedError",
    "TLSConfigError",
    "WorkerError",
]


class EverserveError(Exception):
    """The root of every error that everserve raises by itself."""


class AddressError(EverserveError, ValueError):
    """An address that cannot be read: the message quotes it and shows the accepted forms."""


class OptionError(EverserveError, ValueError):
    """An unknown option, or a value that it does not accept: the message names what is accepted."""


class HandlerError(EverserveError, ValueError):
    """A handler was not found, or is not a handler class: the message names the place searched."""


class AlreadyServingError(EverserveError, RuntimeError):
    """``serve_forever`` was called while it runs already, in this thread or in another."""


class ServerClosedError(EverserveError, ValueError):
    """The server was closed or stopped: its listening socket is gone. Make a new server."""


class NoReplyAddressError(EverserveError, BrokenPipeError):
    """A datagram's sender has no address (an unbound Unix socket), so no reply can be sent."""


class ProxyHeaderError(EverserveError, ValueError):
    """Bytes that are not a valid PROXY protocol header, or values from which none can be built."""


class HandshakeError(EverserveError, ConnectionAbortedError):
    """The handshake of a ``start_tls()`` failed or took too long. The fault is the peer's."""


class RemoteError(EverserveError, RuntimeError):
    """The text of an exception that was raised, and handled, in another process."""


class TLSConfigError(EverserveError, ValueError):
    """A TLS configuration that cannot be used: the message names the file or option, and why."""


class WorkerError(EverserveError, RuntimeError):
    """No worker process can start, so that there is no server: the message says why."""


class LostWorkerError(EverserveError, RuntimeError):
    """The worker of an ``executor`` was lost with a message of this connection, which so ends.

    ``idempotent = True`` in the class of the handler has such a message run again.
    """


class FiberTimeout(EverserveError, TimeoutError):
    """The time of a ``Timeout`` block has passed; ``.timeout`` is that block."""

    timeout: object = None


class HubError(EverserveError, RuntimeError):
    """The fiber engine was used where it cannot work; the message states where it can."""


class EngineUnavailableError(EverserveError, ImportError):
    """``EVERSERVE_ENGINE`` names an engine that does not exist or was not built."""


class LineTooLong(EverserveError, ValueError):
    """The peer sent more bytes without a newline than ``max_line`` allows. The fault is the peer's."""


class FrameError(EverserveError, ValueError):
    """The peer sent bytes that are no message, or a message that is too long. The fault is the peer's.

    ``resumes_at``: the place in the bytes where the next message begins; ``None`` where the codec
    cannot know, so that nothing more can be read.
    """

    def __init__(self, text: str, *, resumes_at: int | None = None) -> None:
        super().__init__(text)
        self.resumes_at = resumes_at


class MistakeWarning(UserWarning):
    """What a program has written and hardly means, such as an option with one letter missing."""
