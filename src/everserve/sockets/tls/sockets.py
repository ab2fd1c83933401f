"""`TLSSocket`: TLS over a connected socket, for threads and fibers alike.

It stands between a connection's plain socket and the handler's streams. It has the `Wire` that moves
the ciphertext; how a connection begins and ends are functions, in `handshake` and `closing`.
"""

import enum
import errno
import os
import socket
import ssl
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from everserve.sockets.layer import Layer
from everserve.sockets.tls.closing import (
    await_close_notify,
    end_tls,
    read_ahead,
    send_close_notify,
)
from everserve.sockets.tls.handshake import do_handshake
from everserve.sockets.tls.hello import HelloReader
from everserve.sockets.tls.identity import TLSIdentity
from everserve.sockets.tls.records import RECORD, Records
from everserve.sockets.tls.wire import BATCH, Lock, Wire, truncation_error

if TYPE_CHECKING:
    from socket import _SendableFile

    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = ["Phase", "TLSSocket"]

HALF_CLOSE_SECONDS = 5.0
"""The limit of `shutdown(SHUT_WR)` for close_notify, on a socket without a time limit."""


class Phase(enum.Enum):
    """How far the connection is."""

    NEW = "the handshake is not done"
    OPEN = "data flows, until one side ends"
    CLOSED = "the socket is closed, or no longer TLS"


class TLSSocket(Layer):
    """A connected socket whose bytes travel encrypted; otherwise what `ssl.SSLSocket` is.

    *Ownership*: `inner` remains the owner of the descriptor: closing it is enough, and closing this
    closes it. No one else may read from or write to `inner` in the meantime.

    *Order*: make it, `do_handshake()` where the request runs, use it, `close_notify(seconds)`, then
    shut down and close `inner`. The first `recv` or `send` does the handshake if it is not done.

    *Time*: `settimeout` is the inner's, for each wait. A record that comes in pieces has as long
    again, counted from its first piece. Non-blocking use raises `ssl.SSLWantReadError` and
    `ssl.SSLWantWriteError`; after the latter repeat the same `send`. Data may be waiting although
    the descriptor is not readable: ask `pending()`.

    *Threads*: one may read while others write. `write_lock` keeps writers apart, a `threading.Lock`
    unless another is given. Where several *fibers* of a thread write to the same connection, give a
    semaphore of fibers: a fiber that waited for a `threading.Lock` would stop them all.

    *Memory* of an idle connection, beside the inner socket: 17 KiB, of which `ssl.SSLSocket` has 14.
    OpenSSL's buffers never shrink: a connection that has received, or sent, a full record of 16 KiB
    keeps 22 KiB more for each direction. (Measured with 1,000 connections of TLS 1.3, OpenSSL 3.0.)

    *Delays*: TCP_NODELAY is set. What is written in small pieces is best gathered before it is
    encrypted, as `wfile` under fibers does.

    `initial` is ciphertext that was read from `inner` already, as behind a PROXY header. With
    STARTTLS it is the opposite: what the peer sent in clear behind its request must not be given
    here, and is best refused, as an attacker may have put it there (RFC 7457, section 2.2).

    `server_side=False` makes the client's side; `server_hostname` is then what is asked for and,
    where the context says so, checked; `session` is one to resume.

    Errors: `ssl.SSLError` and its subclasses for what breaks TLS (the peer was sent an alert before),
    OSError for the connection.
    """

    __slots__ = (
        "_hello",
        "_owed",
        "_phase",
        "_pid",
        "_records",
        "_wire",
        "server_side",
        "suppress_ragged_eofs",
    )

    _wire_class: ClassVar[type[Wire]] = Wire

    suppress_ragged_eofs: bool
    """Whether a stream without close_notify ends as any other does (the default), or raises."""

    def __init__(
        self,
        inner: socket.socket,
        context: ssl.SSLContext,
        *,
        server_side: bool = True,
        server_hostname: str | None = None,
        session: ssl.SSLSession | None = None,
        initial: bytes = b"",
        suppress_ragged_eofs: bool = True,
        write_lock: Lock | None = None,
        records: type[Records] = Records,
    ) -> None:
        super().__init__(inner)
        self.server_side = server_side
        self.suppress_ragged_eofs = suppress_ragged_eofs
        self._records = records(context, server_side, server_hostname, session)
        self._wire = self._wire_class(inner, self._records, write_lock, initial)
        self._hello = HelloReader() if server_side else None
        self._phase = Phase.NEW
        self._owed = 0  # bytes that `send` has encrypted, but not yet reported as sent
        self._pid = os.getpid()
        try:
            # A record is of no use to the peer before its last byte, which Nagle's algorithm holds
            # back until all before it is acknowledged: 1 MiB echoes went a third faster without.
            inner.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            pass  # a Unix socket, or one that has ended: its first use reports that

    # --- the handshake -------------------------------------------------------------------------

    def do_handshake(self, block: bool = False) -> None:
        """Do the handshake; the socket's time limit is for the whole. Nothing when it is done.

        `block` lets a non-blocking socket wait for as long as it takes.

        Errors: `ssl.SSLCertVerificationError`, `ssl.SSLEOFError` (the peer went away), another
        `ssl.SSLError`; TimeoutError; `ssl.SSLWantReadError`, `ssl.SSLWantWriteError`: call again.
        """
        if self._phase is not Phase.NEW:
            return
        with self._wire.lock:  # the second caller finds it done
            if self._phase is Phase.NEW:
                do_handshake(self._wire, self._hello, block=block)
                self._phase = Phase.OPEN

    def _begin(self) -> None:
        """Be open, or raise."""
        if self._phase is Phase.NEW:
            self.do_handshake()
        if self._phase is Phase.CLOSED:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    # --- questions, as to `ssl.SSLSocket`; after the end of the connection, too ------------------

    def identity(self) -> TLSIdentity:
        """The peer's identity and the results of the handshake; read again at each call.

        Errors: ValueError before the handshake.
        """
        return TLSIdentity.of(self._records.tls, self.server_hostname)

    @property
    def server_hostname(self) -> str | None:
        """The host name that the client asked for (SNI); None where it gave none."""
        return self._records.tls.server_hostname if self._hello is None else self._hello.name

    @property
    def context(self) -> ssl.SSLContext:
        """What the connection was made with; the one of the client's host name, where that has one."""
        return self._records.tls.context

    @property
    def session(self) -> ssl.SSLSession | None:
        return self._records.tls.session

    @property
    def session_reused(self) -> bool | None:
        return self._records.tls.session_reused

    def version(self) -> str | None:
        return self._records.tls.version()

    def cipher(self) -> tuple[str, str, int] | None:
        return self._records.tls.cipher()

    def shared_ciphers(self) -> list[tuple[str, str, int]] | None:
        return self._records.tls.shared_ciphers()

    def compression(self) -> str | None:
        return self._records.tls.compression()

    def selected_alpn_protocol(self) -> str | None:
        return self._records.tls.selected_alpn_protocol()

    def getpeercert(self, binary_form: bool = False) -> Any:
        """As `ssl.SSLSocket.getpeercert`: a dict, empty unless verified; DER; None without one."""
        return self._records.tls.getpeercert(binary_form)

    def get_channel_binding(self, cb_type: str = "tls-unique") -> bytes | None:
        return self._records.tls.get_channel_binding(cb_type)

    @property
    def broken(self) -> bool:
        """Whether the peer has sent what is not TLS, or not encrypted with the keys: reading ends."""
        return self._records.broken

    @property
    def truncated(self) -> bool:
        """Whether the stream ended without the peer's close_notify: anyone may have cut it."""
        return self._wire.truncated

    # --- reading -------------------------------------------------------------------------------

    def recv(self, bufsize: int = 1024, flags: int = 0) -> bytes:
        """Read up to `bufsize` bytes, of all records received; b"" at the end of the stream."""
        if flags:
            self._refuse_flags("recv")
        if bufsize <= 0:
            return _nothing(bufsize, "recv")
        if self._phase is not Phase.OPEN:
            self._begin()
        records, wire = self._records, self._wire
        ciphertext = b""
        limit = None
        while True:
            if ciphertext or records.has_input:
                try:
                    found = records.read(ciphertext, bufsize)
                except ssl.SSLError:
                    wire.flush_if_unlocked()  # the alert
                    raise
                if found is not None:
                    return found
            wire.answer()  # such as to KeyUpdate (RFC 8446, section 4.6.3)
            if records.paused:
                wire.give_way()
                ciphertext = b""
                continue
            if records.has_input:
                limit = self._until(limit)
            ciphertext = wire.receive()
            if not ciphertext:
                return self._end_truncated()

    def recv_into(
        self, buffer: "WriteableBuffer", nbytes: int | None = None, flags: int = 0
    ) -> int:
        """Read up to `nbytes` bytes (0, None: what fits) into `buffer`; 0 at the end of the stream."""
        if flags:
            self._refuse_flags("recv_into")
        size = memoryview(buffer).nbytes
        if nbytes:
            size = min(size, nbytes)
        data = self.recv(size) if size > 0 else _nothing(size, "recv_into")
        memoryview(buffer).cast("B")[: len(data)] = data
        return len(data)

    def pending(self) -> int:
        """Bytes that can be read without the kernel. Decrypts what was received in order to know."""
        count = read_ahead(self._wire)
        if self._records.has_output:
            self._wire.flush_if_unlocked()
        return count

    def _end_truncated(self) -> bytes:
        if not self.suppress_ragged_eofs:
            raise truncation_error()
        return b""

    def _until(self, limit: float | None) -> float:
        """The monotonic time by which a record that has begun must be complete."""
        if limit is None:
            timeout = self._inner.gettimeout()
            return monotonic() + timeout if timeout else float("inf")
        if monotonic() > limit:
            raise TimeoutError("timed out")
        return limit

    # --- writing -------------------------------------------------------------------------------

    def send(self, data: "ReadableBuffer", flags: int = 0) -> int:
        """Send the first bytes of `data`, one record at most; the number of bytes."""
        if flags:
            self._refuse_flags("send")
        if self._phase is not Phase.OPEN:
            self._begin()
        wire = self._wire
        with wire.lock, memoryview(data) as view, view.cast("B") as plaintext:
            wire.flush()
            if not self._owed:
                ciphertext = self._records.write(plaintext[:RECORD])
                self._owed = min(len(plaintext), RECORD)
                wire.send(ciphertext)
            elif self._owed > len(plaintext):
                raise ssl.SSLError(ssl.SSL_ERROR_SSL, "bad write retry: not the data of before")
            sent, self._owed = self._owed, 0
            return sent

    def sendall(self, data: "ReadableBuffer", flags: int = 0) -> None:
        """Send all of `data`. The socket's time limit is for each wait, as with `ssl.SSLSocket`."""
        if flags:
            self._refuse_flags("sendall")
        if self._phase is not Phase.OPEN:
            self._begin()
        records, wire = self._records, self._wire
        with wire.lock:
            if wire.unsent:
                wire.flush()
            self._owed = 0
            if type(data) is bytes and len(data) <= RECORD:
                wire.send(records.write(data))
                return
            with memoryview(data) as view, view.cast("B") as plaintext:
                for start in range(0, len(plaintext), BATCH):
                    wire.send(records.write(plaintext[start : start + BATCH]))

    def sendfile(self, file: "_SendableFile", offset: int = 0, count: int | None = None) -> int:
        """Send what `file` holds from `offset` on, at most `count` bytes; the number of bytes."""
        self._check_sendfile_params(file, offset, count)  # type: ignore[attr-defined]
        if self.gettimeout() == 0:
            raise ValueError("non-blocking sockets are not supported")
        if offset:
            file.seek(offset)
        total = 0
        try:
            while block := file.read(BATCH if count is None else min(BATCH, count - total)):
                self.sendall(block)
                total += len(block)
            return total
        finally:
            if total > 0 and hasattr(file, "seek"):
                file.seek(offset + total)

    # --- the end -------------------------------------------------------------------------------

    def close_notify(self, timeout: float = 0.0, *, wait: bool = False, last: bool = False) -> bool:
        """Send close_notify: nothing more comes (RFC 8446, 6.1). True if the peer's was received.

        Takes `timeout` seconds at most, whatever the peer does; nearly always no time at all, as
        it waits only where the kernel's buffer is full. With 0.0 (default) it is not sent then.

        `wait`: wait in that time for the peer's own close_notify too, and drop what else it sends;
        no one else may be reading then. Many clients never send it, or only when they close.

        `last`: the connection is shut down directly after this, and both leave in one segment; the
        kernel may keep it until then, or for 0.2 s.

        The connection is not shut down: that is up to the owner. Never raises for what the peer or
        the connection does; may be repeated.
        """
        limit = monotonic() + timeout
        if self._has_more_to_send():
            send_close_notify(self._wire, timeout, last=last and not wait)
        if wait and self._phase is Phase.OPEN:
            await_close_notify(self._wire, limit)
        return self._records.close_notify_received

    def shutdown(self, how: int, /) -> None:
        """Shut down one direction or both; before writing ends, close_notify is sent.

        With SHUT_WR reading goes on, and the time limit, or 5 s where there is none, bounds the
        sending; with SHUT_RDWR nothing is waited for.
        """
        if how != socket.SHUT_RD and self._has_more_to_send():
            timeout = self._inner.gettimeout() if how == socket.SHUT_WR else 0.0
            seconds = HALF_CLOSE_SECONDS if timeout is None else timeout
            send_close_notify(self._wire, seconds, last=True)
        self._inner.shutdown(how)

    def unwrap(self) -> socket.socket:
        """End TLS in both directions; returns `inner`, to go on in clear. `surplus()` comes first.

        Errors: `ssl.SSLError` where the peer still sends data, `ssl.SSLEOFError` where it has gone;
        ValueError before the handshake and after the end.
        """
        if self._phase is not Phase.OPEN or self._records.broken:
            raise ValueError(f"No SSL wrapper around {self}")
        end_tls(self._wire)
        self._phase = Phase.CLOSED
        return self._inner

    def surplus(self) -> bytes:
        """After `unwrap`: what came in clear behind the peer's close_notify, once."""
        return self._records.surplus() if self._phase is Phase.CLOSED else b""

    def detach(self) -> int:
        """Give up the descriptor, and return it; close_notify is not sent."""
        self._phase = Phase.CLOSED
        return super().detach()

    def _real_close(self) -> None:
        # A process that has only inherited the connection must not end it for the owner. And a
        # lock that is taken may be held by this very thread, below a signal handler.
        if self._has_more_to_send() and self._pid == os.getpid() and not self._records.locked:
            send_close_notify(self._wire, last=True)
        self._phase = Phase.CLOSED
        super()._real_close()

    def _has_more_to_send(self) -> bool:
        """Whether close_notify, or ciphertext before it, has not been sent."""
        return self._phase is Phase.OPEN and (
            not self._records.close_notify_sent or len(self._wire.unsent) > 0
        )

    def _refuse_flags(self, method: str) -> NoReturn:
        raise ValueError(f"non-zero flags not allowed in calls to {method}() on {type(self)}")


def _nothing(size: int, method: str) -> bytes:
    if size < 0:
        raise ValueError(f"negative buffersize in {method}")
    return b""
