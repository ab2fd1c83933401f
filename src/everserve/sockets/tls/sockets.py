"""`TLSSocket`: TLS over a connected socket, for threads and fibers alike.

It stands between a connection's plain socket and the handler's streams, and reads as a conversation
goes: reading, writing, the end. The handshake is `handshake`'s, how ciphertext travels `wire`'s.
"""

import os
import socket
import ssl
from time import monotonic
from typing import TYPE_CHECKING

from everserve.sockets.tls.handshake import TLSHandshake
from everserve.sockets.tls.records import RECORD, Records
from everserve.sockets.tls.wire import (
    BATCH,
    CUT,
    PIECE,
    Phase,
    Turn,
    closed_error,
    ragged_error,
    want_read,
)

if TYPE_CHECKING:
    from socket import _SendableFile

    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = ["TLSSocket", "Turn"]

HALF_CLOSE_SECONDS = 5.0
"""How long `shutdown(SHUT_WR)` on a socket without a time limit tries to say close_notify."""


class TLSSocket(TLSHandshake):
    """A connected socket whose bytes travel encrypted; otherwise what `ssl.SSLSocket` is.

    *Ownership*: `inner` stays the owner of the descriptor: closing it is enough, and closing this
    closes it. Nobody else may read from or write to `inner` in the meantime.

    *Order*: make it, `do_handshake()` where the request runs, use it, `close_notify(seconds)`, then
    shut down and close `inner`. A `recv` or `send` does the handshake where nobody has.

    *Time*: `settimeout` is the inner's, for each wait; a record that comes in pieces has, from its
    first piece on, as long again. Non-blocking use raises `ssl.SSLWantReadError` and
    `ssl.SSLWantWriteError`; after the latter repeat the same `send`. Data may be waiting although
    the descriptor is not readable: ask `pending()`.

    *Threads*: one may read while others write. Writers take turns by `turn`, a `threading.Lock`
    unless another is given. Where several *fibers* of a thread write to the same connection, give a
    semaphore of fibers: one that waited for a `threading.Lock` would stop them all.

    *Memory* of an idle connection, beside the inner socket: 17 KiB, of which `ssl.SSLSocket` has 14.
    OpenSSL's memory never shrinks: one that has ever read, or sent, a full record of 16 KiB keeps
    22 KiB more for each of the two. (Measured with 1,000 connections of TLS 1.3, OpenSSL 3.0.)

    *Delays*: TCP_NODELAY is set. What is written in small pieces is best gathered before it is
    sealed, as `wfile` under fibers does.

    `initial` is ciphertext that was read from `inner` already, as behind a PROXY header. With
    STARTTLS it is the opposite: what the peer sent in clear behind its request must not be given
    here, and is best refused, as an attacker may have put it there (RFC 7457, section 2.2).

    `server_side=False` makes the client's side; `server_hostname` is then what is asked for and,
    where the context says so, checked; `session` is one to resume.

    Errors: `ssl.SSLError` and its kinds for what breaks TLS (the peer has been told by an alert by
    then), OSError for the connection.
    """

    __slots__ = ("_pid", "suppress_ragged_eofs")

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
        turn: Turn | None = None,
        records: type[Records] = Records,
    ) -> None:
        super().__init__(inner, context, server_side, server_hostname, session, turn, records)
        self.suppress_ragged_eofs = suppress_ragged_eofs
        self._initial = initial
        self._pid = os.getpid()
        try:
            # A record is of no use to the peer before its last byte, which Nagle's algorithm holds
            # back until all before it is acknowledged: 1 MiB echoes went a third faster without.
            inner.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            pass  # a Unix socket, or one that has ended: the first use of it tells

    # --- reading -------------------------------------------------------------------------------

    def recv(self, bufsize: int = 1024, flags: int = 0) -> bytes:
        """Read up to `bufsize` bytes, of as many records as are here; b"" at the stream's end."""
        if flags:
            self._refuse_flags("recv")
        if bufsize <= 0:
            return _nothing(bufsize, "recv")
        if self._phase is not Phase.OPEN:
            self._begin()
        sealed = b""
        limit = None
        while True:
            if sealed or self._records.holding:
                found = self._decrypt(sealed, bufsize)
                if found is not None:
                    return found
                limit = self._until(limit)
            if self._records.speaking:
                self._ship_at_once()
            try:
                sealed = self._inner.recv(PIECE)
            except BlockingIOError:
                raise want_read() from None
            if not sealed:
                return self._end_ragged()

    def recv_into(
        self, buffer: "WriteableBuffer", nbytes: int | None = None, flags: int = 0
    ) -> int:
        """Read up to `nbytes` bytes (0, None: what fits) into `buffer`; 0 at the stream's end."""
        if flags:
            self._refuse_flags("recv_into")
        size = memoryview(buffer).nbytes
        if nbytes:
            size = min(size, nbytes)
        data = self.recv(size) if size > 0 else _nothing(size, "recv_into")
        memoryview(buffer).cast("B")[: len(data)] = data
        return len(data)

    def pending(self) -> int:
        """Bytes that can be read without the kernel. Decrypts what is here in order to know."""
        early = self._records.read_early()
        if self._records.speaking:
            self._ship_at_once()
        return early

    @property
    def broken(self) -> bool:
        """Whether the peer has sent what is no TLS, or not by the keys: nothing more can be read."""
        return self._records.broken

    def _begin(self) -> None:
        """Be open, or say why not."""
        if self._phase is Phase.FRESH:
            self.do_handshake()
        if self._phase is Phase.CLOSED:
            raise closed_error()

    def _decrypt(self, sealed: bytes, size: int) -> bytes | None:
        """Up to `size` bytes of what is here; None when the rest of a record has to come first.

        What OpenSSL has to say besides, as an answer to KeyUpdate (RFC 8446, 4.6.3), leaves with
        the next data, or before the next wait.
        """
        try:
            return self._records.read(sealed, size)
        except ssl.SSLError:
            self._ship_at_once()  # the alert
            raise

    def _end_ragged(self) -> bytes:
        self.truncated = True
        if not self.suppress_ragged_eofs:
            raise ragged_error(CUT)
        return b""

    def _until(self, limit: float | None) -> float:
        """The moment by which a record that has begun must be there."""
        if limit is None:
            timeout = self._inner.gettimeout()
            return monotonic() + timeout if timeout else float("inf")
        if monotonic() > limit:
            raise TimeoutError("timed out")
        return limit

    # --- writing -------------------------------------------------------------------------------

    def send(self, data: "ReadableBuffer", flags: int = 0) -> int:
        """Send the first bytes of `data`, a record's worth at most, and tell how many."""
        if flags:
            self._refuse_flags("send")
        if self._phase is not Phase.OPEN:
            self._begin()
        with self._turn, memoryview(data) as view, view.cast("B") as plain:
            self._ship()
            if not self._owed:
                sealed = self._records.write(plain[:RECORD])
                self._owed = min(len(plain), RECORD)
                self._send(sealed)
            elif self._owed > len(plain):
                raise ssl.SSLError(ssl.SSL_ERROR_SSL, "bad write retry: not the data of before")
            sent, self._owed = self._owed, 0
            return sent

    def sendall(self, data: "ReadableBuffer", flags: int = 0) -> None:
        """Send all of `data`. The socket's time limit is for each wait, as with `ssl.SSLSocket`."""
        if flags:
            self._refuse_flags("sendall")
        if self._phase is not Phase.OPEN:
            self._begin()
        with self._turn:
            if self._unsent:
                self._ship()
            self._owed = 0
            if type(data) is bytes and len(data) <= RECORD:
                self._send(self._records.write(data))
                return
            with memoryview(data) as view, view.cast("B") as plain:
                for start in range(0, len(plain), BATCH):
                    self._send(self._records.write(plain[start : start + BATCH]))

    def sendfile(self, file: "_SendableFile", offset: int = 0, count: int | None = None) -> int:
        """Send what `file` holds from `offset` on, `count` bytes at most; tells how many."""
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
        """Say that nothing more comes (RFC 8446, section 6.1); tell whether the peer has said so.

        Takes `timeout` seconds at most, whatever the peer does; nearly always no time at all, as
        it waits only where the kernel's buffer is full. With 0.0 (default) it is not sent then.

        `wait`: wait in that time for the peer's own close_notify too, and drop what else it sends;
        nobody else may be reading then. Many clients never say it, or only when they close.

        `last`: the connection is shut down directly after this, and both leave in one segment; the
        kernel may keep it until then, or for 0.2 s.

        The connection is not shut down: that is the owner's to do. Never raises for what the peer
        or the connection does; may be repeated.
        """
        limit = monotonic() + timeout
        if self._may_speak():
            self._say_goodbye(timeout, last and not wait)
        if wait and self._is_open() and not self.truncated:
            self._await_goodbye(limit)
        return self._records.ended

    def shutdown(self, how: int, /) -> None:
        """Shut down one direction or both; before writing ends, close_notify is sent.

        With SHUT_WR reading goes on, and the time limit, or 5 s where there is none, bounds the
        sending; with SHUT_RDWR nothing is waited for.
        """
        if how != socket.SHUT_RD and self._may_speak():
            timeout = self._inner.gettimeout() if how == socket.SHUT_WR else 0.0
            self._say_goodbye(HALF_CLOSE_SECONDS if timeout is None else timeout, True)
        self._inner.shutdown(how)

    def unwrap(self) -> socket.socket:
        """End TLS in both directions; returns `inner`, to go on in clear. `surplus()` comes first.

        Errors: `ssl.SSLError` where the peer still sends data, `ssl.SSLEOFError` where it has gone;
        ValueError before the handshake and after the end.
        """
        if self._phase is not Phase.OPEN or self._records.broken:
            raise ValueError(f"No SSL wrapper around {self}")
        with self._turn:
            self._records.say_goodbye()
            self._ship()
        early = self._records.read_early()
        while not early and self._is_open():
            early = self._records.read_early(self._fetch())
        if early:
            raise ssl.SSLError(ssl.SSL_ERROR_SSL, "application data after close notify")
        self._records.raise_fault()
        self._phase = Phase.CLOSED
        return self._inner

    def surplus(self) -> bytes:
        """After `unwrap`: what came in clear behind the peer's close_notify, once."""
        return self._records.surplus() if self._phase is Phase.CLOSED else b""

    def detach(self) -> int:
        """Give up the descriptor, and return it; nothing is said to the peer."""
        self._phase = Phase.CLOSED
        return super().detach()

    def _real_close(self) -> None:
        # A process that has only inherited the connection must not speak in its name; and a lock
        # that is taken here may be this very thread's, which a signal has interrupted.
        if self._may_speak() and self._pid == os.getpid() and not self._records.locked:
            self._say_goodbye(0.0, True)
        self._phase = Phase.CLOSED
        super()._real_close()

    def _may_speak(self) -> bool:
        """Whether there is anything to say before the connection ends."""
        return self._phase is Phase.OPEN and (not self._records.said or len(self._unsent) > 0)

    def _say_goodbye(self, timeout: float, last: bool) -> None:
        """Send close_notify within `timeout` seconds, or let it be."""
        limit = monotonic() + timeout
        if not (self._turn.acquire(True, timeout) if timeout > 0.0 else self._turn.acquire(False)):
            return
        try:
            self._records.say_goodbye()
            self._ship(at_once=True, last=last)
        except ssl.SSLWantWriteError:
            if timeout > 0.0:
                self._ship_patiently(limit)
        except OSError:
            pass
        finally:
            self._turn.release()

    def _ship_patiently(self, limit: float) -> None:
        before = self._inner.gettimeout()
        try:
            self._ship(limit)
        except OSError:
            pass
        finally:
            self._restore(before)

    def _await_goodbye(self, limit: float) -> None:
        before = self._inner.gettimeout()
        try:
            while self._is_open():
                self._records.read_early(self._fetch(limit))
                self._records.forget_early()
        except OSError:
            pass
        finally:
            self._restore(before)

    def _is_open(self) -> bool:
        """Whether the peer may have more to say."""
        return self._phase is Phase.OPEN and not self._records.ended and not self._records.broken


def _nothing(size: int, method: str) -> bytes:
    if size < 0:
        raise ValueError(f"negative buffersize in {method}")
    return b""
