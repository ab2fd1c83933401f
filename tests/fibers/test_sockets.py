"""FiberSocket: everything of `socket.socket`, parking the fiber instead of blocking the thread."""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import socket
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from everserve.errors import FiberTimeout
from everserve.fibers.connecting import create_connection
from everserve.fibers.offloading import offload
from everserve.fibers.sync import sleep
from everserve.fibers.timeouts import Timeout

Pair = tuple[Any, socket.socket]
Run = Callable[..., Any]


def test_it_is_a_socket(parts: Any, pair: Pair) -> None:
    ours, _peer = pair
    assert isinstance(ours, socket.socket)
    assert type(ours) is parts.FiberSocket
    assert ours.family == socket.AF_INET
    assert ours.type == socket.SOCK_STREAM
    assert ours.gettimeout() is None
    assert ours.timeout is None
    assert ours.getblocking()
    assert "FiberSocket" in repr(ours)
    with pytest.raises(TypeError):
        pickle.dumps(ours)


def test_recv_parks_until_data_comes(hub: Any, pair: Pair) -> None:
    ours, peer = pair
    got: list[bytes] = []
    fiber = hub.spawn(lambda: got.append(ours.recv(100)))
    hub.turn(0)
    hub.turn(0)
    assert fiber.parked
    peer.sendall(b"hello")
    assert fiber.join(10)
    assert got == [b"hello"]


def test_all_ways_of_receiving(run: Run, pair: Pair) -> None:
    ours, peer = pair
    buffer = bytearray(4)

    def receives() -> None:
        peer.sendall(b"abcdefghijklmnopqrstuvwxyz")
        assert ours.recv(2) == b"ab"
        assert ours.recv(1, socket.MSG_PEEK) == b"c"
        assert ours.recv_into(buffer) == 4
        assert buffer == b"cdef"
        assert ours.recv_into(buffer, 2) == 2
        assert buffer == b"ghef"
        assert ours.recvfrom(2)[0] == b"ij"
        assert ours.recvfrom_into(buffer)[0] == 4
        assert buffer == b"klmn"
        assert ours.recvmsg(2)[0] == b"op"
        assert ours.recvmsg_into([buffer])[0] == 4
        assert buffer == b"qrst"
        assert ours.recv(100) == b"uvwxyz"
        peer.shutdown(socket.SHUT_WR)
        assert ours.recv(100) == b""
        assert ours.recv(100) == b""
        with pytest.raises(ValueError, match="negative"):
            ours.recv(-1)
        with pytest.raises(ValueError, match="too small"):
            ours.recv_into(buffer, 5)

    run(receives)


def test_all_ways_of_sending(run: Run, pair: Pair) -> None:
    ours, peer = pair

    def sends() -> None:
        assert ours.send(b"a") == 1
        assert ours.sendall(bytearray(b"b")) is None
        assert ours.sendmsg([b"c", memoryview(b"d")]) == 2
        with tempfile.TemporaryFile() as file:
            file.write(b"0123efgh" * 20000)
            file.flush()
            file.seek(0)
            assert ours.sendfile(file, 4, 4) == 4
            assert file.tell() == 8

    run(sends)
    assert peer.recv(8, socket.MSG_WAITALL) == b"abcdefgh"


def test_much_data_goes_both_ways_at_once(run: Run, pair: Pair, hub: Any) -> None:
    ours, peer = pair
    payload = os.urandom(1 << 20) * 3

    def sender() -> None:
        peer.sendall(payload)
        peer.shutdown(socket.SHUT_WR)

    back: list[bytes] = []

    def reader() -> None:
        while data := peer.recv(1 << 16):
            back.append(data)

    threads = [threading.Thread(target=target) for target in (sender, reader)]
    for thread in threads:
        thread.start()

    def echo() -> None:
        while data := ours.recv(200_000):
            ours.sendall(data)
        ours.shutdown(socket.SHUT_WR)

    run(echo)
    for thread in threads:
        thread.join()
    assert b"".join(back) == payload


def test_a_timeout_is_for_each_call(run: Run, pair: Pair) -> None:
    ours, peer = pair

    def times_out() -> None:
        ours.settimeout(0.01)
        assert ours.gettimeout() == 0.01
        for _ in range(2):
            with pytest.raises(TimeoutError, match="timed out"):
                ours.recv(1)
        with pytest.raises(TimeoutError):
            ours.recvfrom(1)
        with pytest.raises(TimeoutError):
            ours.sendall(b"x" * (64 << 20))
        peer.sendall(b"x")
        ours.settimeout(10)
        assert ours.recv(1) == b"x"

    run(times_out)


def test_a_timeout_of_zero_never_waits(run: Run, pair: Pair) -> None:
    ours, peer = pair

    def does_not_wait() -> None:
        ours.setblocking(False)
        assert ours.gettimeout() == 0.0
        assert not ours.getblocking()
        for call in (lambda: ours.recv(1), lambda: ours.recvfrom(1), lambda: ours.recvmsg(1)):
            with pytest.raises(BlockingIOError):
                call()
        peer.sendall(b"x")
        while True:
            try:
                assert ours.recv(1) == b"x"
                return
            except BlockingIOError:
                sleep(0.001)

    run(does_not_wait)


@pytest.mark.parametrize("value", [-1, float("nan"), float("-inf")])
def test_impossible_timeouts_are_refused(pair: Pair, value: float) -> None:
    with pytest.raises(ValueError, match="out of range"):
        pair[0].settimeout(value)


DO_NOT_WAIT: dict[str, Callable[[Any], object]] = {
    "recv": lambda ours: ours.recv(1, socket.MSG_DONTWAIT),
    "peek": lambda ours: ours.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT),
    "recv_into": lambda ours: ours.recv_into(bytearray(1), 0, socket.MSG_DONTWAIT),
    "recvfrom": lambda ours: ours.recvfrom(1, socket.MSG_DONTWAIT),
    "recvmsg": lambda ours: ours.recvmsg(1, 0, socket.MSG_DONTWAIT),
    "send": lambda ours: [ours.send(bytes(1 << 20), socket.MSG_DONTWAIT) for _ in range(100)],
    "sendall": lambda ours: ours.sendall(bytes(100 << 20), socket.MSG_DONTWAIT),
    "sendmsg": lambda ours: [
        ours.sendmsg([bytes(1 << 20)], [], socket.MSG_DONTWAIT) for _ in range(100)
    ],
}


@pytest.mark.parametrize("how", DO_NOT_WAIT)
def test_msg_dontwait(run: Run, pair: Pair, how: str) -> None:
    with pytest.raises(BlockingIOError):
        run(DO_NOT_WAIT[how], pair[0])


@pytest.mark.parametrize("how", ["recv", "recv_into"])
def test_msg_waitall(run: Run, hub: Any, pair: Pair, how: str) -> None:
    ours, peer = pair

    def send_in_pieces() -> None:
        for piece in (b"ab", b"cd", b"ef"):
            peer.sendall(piece)
            sleep(0.001)
        peer.shutdown(socket.SHUT_WR)

    def receive(size: int) -> bytes:
        if how == "recv":
            return ours.recv(size, socket.MSG_WAITALL)
        room = bytearray(size)
        return bytes(room[: ours.recv_into(room, size, socket.MSG_WAITALL)])

    hub.spawn(send_in_pieces)
    assert run(receive, 5) == b"abcde"
    assert run(receive, 5) == b"f"


def test_reading_nothing_does_not_wait(run: Run, pair: Pair) -> None:
    assert run(pair[0].recv, 0) == b""
    assert run(pair[0].recv_into, bytearray(0)) == 0


@pytest.mark.parametrize("how", ["recv_into", "recvfrom", "recvmsg", "sendto"])
def test_every_call_counts_for_fairness(parts: Any, hub: Any, how: str) -> None:
    """Datagrams that never end, or never wait, do not keep other fibers from running."""
    ours = parts.FiberSocket(socket.AF_INET, socket.SOCK_DGRAM)
    ours.bind(("127.0.0.1", 0))
    others: list[int] = []
    calls: dict[str, Callable[[], object]] = {
        "recv_into": lambda: ours.recv_into(bytearray(1)),
        "recvfrom": lambda: ours.recvfrom(1),
        "recvmsg": lambda: ours.recvmsg(1),
        "sendto": lambda: ours.sendto(b"x", ours.getsockname()),
    }

    def work() -> None:
        hub.spawn(others.append, 1)
        for _ in range(1000):
            feeder.sendto(b"x", ours.getsockname())
            calls[how]()
            if others:
                return

    with ours, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as feeder:
        assert hub.spawn(work).join(20)
        assert others, "1000 calls went by"


def test_a_timeout_block_ends_a_read_and_loses_nothing(run: Run, pair: Pair) -> None:
    ours, peer = pair

    def reads() -> bytes:
        with pytest.raises(TimeoutError), Timeout(0.01):
            ours.recv(1)
        peer.sendall(b"later")
        return bytes(ours.recv(10))

    assert run(reads) == b"later"


def test_outside_of_a_fiber_it_blocks_its_thread(pair: Pair) -> None:
    ours, peer = pair
    timer = threading.Timer(0.02, peer.sendall, [b"x"])
    timer.start()
    assert ours.recv(10) == b"x"
    timer.join()
    ours.settimeout(0.01)
    with pytest.raises(TimeoutError):
        ours.recv(10)
    with pytest.raises(TimeoutError):
        ours.recvfrom(10)


def test_a_socket_used_in_another_thread_while_a_fiber_runs(run: Run, pair: Pair) -> None:
    ours, peer = pair
    got: list[bytes] = []
    thread = threading.Thread(target=lambda: got.append(ours.recv(10)))

    def meanwhile() -> None:
        thread.start()
        sleep(0.01)
        peer.sendall(b"x")
        thread.join()

    run(meanwhile)
    assert got == [b"x"]


def test_close_wakes_the_waiters(hub: Any, pair: Pair) -> None:
    ours, _peer = pair
    seen: list[int | None] = []

    def waits() -> None:
        try:
            ours.recv(1)
        except OSError as error:
            seen.append(error.errno)

    fibers = [hub.spawn(waits) for _ in range(3)]
    hub.turn(0)
    hub.turn(0)
    ours.close()
    for fiber in fibers:
        assert fiber.join(5)
    assert seen == [errno.EBADF] * 3
    assert ours.fileno() == -1
    with pytest.raises(OSError, match="Bad file descriptor"):
        ours.recv(1)


def test_shutdown_wakes_a_reader(hub: Any, pair: Pair) -> None:
    ours, _peer = pair
    got: list[bytes] = []
    fiber = hub.spawn(lambda: got.append(ours.recv(1)))
    hub.turn(0)
    hub.turn(0)
    ours.shutdown(socket.SHUT_RDWR)
    assert fiber.join(5)
    assert got == [b""]


def test_a_reset_by_the_peer_is_an_error_of_that_connection(run: Run, pair: Pair) -> None:
    ours, peer = pair

    def is_reset() -> None:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        with pytest.raises(ConnectionResetError):
            ours.recv(1)
        with pytest.raises(BrokenPipeError):
            ours.sendall(b"x")

    run(is_reset)


def test_a_half_closed_connection_works_in_the_other_direction(run: Run, pair: Pair) -> None:
    ours, peer = pair

    def half() -> None:
        peer.shutdown(socket.SHUT_WR)
        assert ours.recv(1) == b""
        ours.sendall(b"still here")
        ours.shutdown(socket.SHUT_WR)

    run(half)
    assert peer.recv(100, socket.MSG_WAITALL) == b"still here"


def test_one_fiber_reads_while_another_writes(hub: Any, pair: Pair) -> None:
    ours, peer = pair
    got: list[bytes] = []
    fibers = [
        hub.spawn(lambda: got.append(ours.recv(1))),
        hub.spawn(ours.sendall, b"x" * (8 << 20)),
    ]
    for _ in range(5):
        hub.turn(0)
    assert fibers[0].parked
    assert fibers[1].parked
    peer.sendall(b"r")
    assert fibers[0].join(5)
    assert fibers[1].parked

    def read() -> None:
        left = 8 << 20
        while left:
            left -= len(peer.recv(left))

    reader = threading.Thread(target=read)
    reader.start()
    assert fibers[1].join(20)
    reader.join()
    assert got == [b"r"]


def test_a_killed_fiber_closes_its_socket(hub: Any, pair: Pair) -> None:
    ours, peer = pair

    def handler() -> None:
        with ours:
            ours.recv(1)

    fiber = hub.spawn(handler)
    hub.turn(0)
    hub.turn(0)
    fiber.kill()
    assert fiber.join(5)
    assert peer.recv(1) == b""


def test_a_detached_descriptor_blocks_as_its_timeout_says(run: Run, pair: Pair) -> None:
    ours, peer = pair

    def detaches() -> None:
        peer.sendall(b"ab")
        assert ours.recv(1) == b"a"
        with socket.socket(fileno=ours.detach()) as plain:
            assert os.get_blocking(plain.fileno())
            assert plain.recv(1) == b"b"
        assert ours.fileno() == -1

    run(detaches)


def test_dup_is_another_fiber_socket(run: Run, pair: Pair, parts: Any) -> None:
    ours, peer = pair

    def dups() -> None:
        ours.settimeout(5)
        peer.sendall(b"a")
        assert ours.recv(1) == b"a"
        with ours.dup() as other:
            assert type(other) is parts.FiberSocket
            assert other.gettimeout() == 5
            ours.close()
            peer.sendall(b"b")
            assert other.recv(1) == b"b"

    run(dups)


def test_makefile_works_and_keeps_the_descriptor(run: Run, pair: Pair) -> None:
    ours, peer = pair

    def uses_files() -> None:
        with ours.makefile("rw", encoding="ascii", newline="\n") as file:
            ours.close()
            peer.sendall(b"one\ntwo\n")
            assert file.readline() == "one\n"
            file.write("reply\n")
            file.flush()
            assert ours.fileno() >= 0
        assert ours.fileno() == -1

    run(uses_files)
    assert peer.recv(100) == b"reply\n"


def test_accept_and_connect_park(parts: Any, run: Run, hub: Any) -> None:
    def serves() -> None:
        with parts.FiberSocket(socket.AF_INET, socket.SOCK_STREAM) as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            client = hub.spawn(connects, listener.getsockname())
            accepted, address = listener.accept()
            with accepted:
                assert type(accepted) is parts.FiberSocket
                assert address == accepted.getpeername()
                assert accepted.recv(10) == b"hi"
            client.join()

    def connects(address: Any) -> None:
        with create_connection(address, timeout=5) as sock:
            assert sock.gettimeout() == 5
            sock.sendall(b"hi")
            assert sock.recv(1) == b""

    run(serves)


def test_connecting_to_a_free_port_is_refused(parts: Any, run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()

    def fails() -> None:
        with pytest.raises(ConnectionRefusedError):
            create_connection(address, timeout=5)
        with pytest.raises(ExceptionGroup):
            create_connection(address, timeout=5, all_errors=True)
        with parts.FiberSocket() as sock:
            assert sock.connect_ex(address) == errno.ECONNREFUSED

    run(fails)


@pytest.mark.parametrize("how", ["create_connection", "connect_ex"])
def test_a_timeout_block_ends_connecting(
    parts: Any, run: Run, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Even if there are more addresses to try."""
    block = Timeout(0.002)

    def connect() -> None:
        sock = parts.FiberSocket(socket.AF_INET)
        with sock, block:
            if how == "connect_ex":
                sock.connect_ex(address)
            else:
                create_connection(("name", 1), timeout=0.5).close()

    with full_backlog() as address:
        found = (socket.AF_INET, socket.SOCK_STREAM, 0, "", address)
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_arguments: [found, found])
        with pytest.raises(FiberTimeout) as caught:
            run(connect)
    assert caught.value.timeout is block


@contextlib.contextmanager
def full_backlog() -> Iterator[Any]:
    """The address of a listener whose backlog is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield listener.getsockname()


def test_names_are_looked_up_in_a_thread(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []
    real = socket.getaddrinfo

    def look_up(host: str, *rest: Any) -> Any:
        if host == "somewhere.invalid":
            threads.append(threading.current_thread().name)
            if rest[-1] == socket.AI_NUMERICHOST:
                raise socket.gaierror
            host = "127.0.0.1"
        return real(host, *rest)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        run(lambda: create_connection(("somewhere.invalid", listener.getsockname()[1])).close())
    assert threads[0] == "MainThread"
    assert threads[1].startswith("everserve-offload")


def test_accept_many_takes_the_waiting_connections(parts: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        assert parts.accept_many(listener.fileno(), 10) == []
        clients = [socket.create_connection(listener.getsockname()) for _ in range(5)]
        accepted: list[Any] = []
        while len(accepted) < 5:
            accepted += parts.accept_many(listener.fileno(), 3)
        for sock, address in accepted:
            assert type(sock) is parts.FiberSocket
            assert address == sock.getpeername()
            assert not os.get_inheritable(sock.fileno())
            sock.close()
        for client in clients:
            client.close()
    with pytest.raises(OSError, match="Bad file"):
        parts.accept_many(listener.fileno(), 10)


def test_accept_many_never_blocks(parts: Any) -> None:
    """A listener that processes share becomes blocking when one of them makes it so."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert listener.getblocking()
        with socket.create_connection(listener.getsockname()):
            ((accepted, _address),) = parts.accept_many(listener.fileno())
            accepted.close()
        os.set_blocking(listener.fileno(), True)
        assert parts.accept_many(listener.fileno()) == []


def test_accept_many_over_ipv6_and_unix(parts: Any, tmp_path: Any) -> None:
    for family, address in (
        (socket.AF_INET6, ("::1", 0)),
        (socket.AF_UNIX, str(tmp_path / "s")),
    ):
        with socket.socket(family) as listener:
            listener.bind(address)
            listener.listen()
            listener.setblocking(False)
            with socket.socket(family) as client:
                client.connect(listener.getsockname())
                found: list[Any] = []
                while not found:
                    found = parts.accept_many(listener.fileno())
                [(sock, peer)] = found
                assert sock.family == family
                assert peer == sock.getpeername()
                sock.close()


def test_datagrams(parts: Any, run: Run) -> None:
    def exchange() -> None:
        with (
            parts.FiberSocket(socket.AF_INET, socket.SOCK_DGRAM) as ours,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer,
        ):
            ours.bind(("127.0.0.1", 0))
            peer.bind(("127.0.0.1", 0))
            for text in (b"one", b"two", b""):
                peer.sendto(text, ours.getsockname())
            assert [ours.recvfrom(100)[0] for _ in range(3)] == [b"one", b"two", b""]
            assert ours.sendto(b"back", peer.getsockname()) == 4
            assert peer.recv(100) == b"back"
            peer.sendto(b"a", ours.getsockname())
            peer.sendto(b"b", ours.getsockname())
            assert [ours.recv(10), ours.recv(10)] == [b"a", b"b"]

    run(exchange)


def test_a_read_without_a_bound_takes_what_there_is(parts: Any, run: Run, pair: Pair) -> None:
    """A call may request more than any buffer holds: a stream returns less, a datagram is whole."""
    ours, peer = pair
    sizes = (1, 100_000, 5, 300_000, 70_000)
    sender = threading.Thread(target=lambda: [peer.sendall(b"x" * size) for size in sizes])

    def reads() -> int:
        total = 0
        while total < sum(sizes):
            total += len(ours.recv(1 << 20))
        return total

    sender.start()
    assert run(reads) == sum(sizes)
    sender.join(20)
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    datagram = os.urandom(100_000)
    with parts.FiberSocket.adopt(left) as reader, right:
        right.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        right.send(datagram)
        assert run(reader.recv, 1 << 20) == datagram


def test_unix_sockets_never_infer_that_they_are_empty(parts: Any, run: Run) -> None:
    left, peer = socket.socketpair()
    ours = parts.FiberSocket.adopt(left)

    def receives() -> None:
        with ours, peer, tempfile.TemporaryFile() as file:
            rights = struct.pack("i", file.fileno())
            peer.sendmsg([b"a"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
            peer.send(b"b")
            assert ours.recv(10) == b"a"
            assert ours.recv(10) == b"b"

    run(receives)


def test_urgent_data_does_not_hide_what_follows(run: Run, pair: Pair) -> None:
    ours, peer = pair

    def receives() -> bytes:
        got = b""
        peer.send(b"abc")
        peer.send(b"!", socket.MSG_OOB)
        peer.send(b"def")
        peer.settimeout(10)
        while len(got) < 6:
            got += ours.recv(100)
        return got

    assert run(receives) == b"abcdef"


def test_a_pipelining_client_does_not_starve_the_others(hub: Any, pair: Pair) -> None:
    ours, peer = pair
    reads = 0
    others = 0

    def greedy() -> None:
        nonlocal reads
        while ours.recv(1):
            reads += 1

    def other() -> None:
        nonlocal others
        while not greedily.dead:
            others += 1
            sleep()

    peer.sendall(b"x" * 10_000)
    peer.shutdown(socket.SHUT_WR)
    greedily = hub.spawn(greedy)
    hub.spawn(other)
    while hub.fibers:
        hub.turn(5)
    assert reads == 10_000
    assert others > 100


def test_a_socket_moves_between_hubs(parts: Any, pair: Pair) -> None:
    ours, peer = pair
    for text in (b"one", b"two"):
        hub = parts.Hub()
        got: list[bytes] = []
        fiber = hub.spawn(lambda got=got: got.append(ours.recv(10)))
        hub.turn(0)
        hub.turn(0)
        peer.sendall(text)
        assert fiber.join(5)
        assert got == [text]
        hub.close()


def test_two_hubs_take_turns_with_one_socket(parts: Any, pair: Pair) -> None:
    ours, peer = pair
    hubs = [parts.Hub(), parts.Hub()]
    for round_ in range(4):
        hub = hubs[round_ % 2]
        got: list[bytes] = []
        fiber = hub.spawn(lambda got=got: got.append(ours.recv(10)))
        hub.turn(0)
        peer.sendall(b"x")
        assert fiber.join(5)
        assert got == [b"x"]
    for hub in hubs:
        hub.close()


def test_adopting_takes_over_timeout_and_descriptor(parts: Any) -> None:
    left, peer = socket.socketpair()
    with peer:
        left.settimeout(3)
        ours = parts.FiberSocket.adopt(left)
        assert ours.gettimeout() == 3
        assert left.fileno() == -1
        fd = os.dup(ours.fileno())
        with ours, parts.FiberSocket.adopt(fd) as again:
            assert again.fileno() == fd
            assert again.family == socket.AF_UNIX


def test_the_default_timeout_holds_for_new_sockets(parts: Any) -> None:
    socket.setdefaulttimeout(7)
    try:
        with parts.FiberSocket() as sock:
            assert sock.gettimeout() == 7
    finally:
        socket.setdefaulttimeout(None)


@pytest.mark.parametrize("kind", [socket.SOCK_SEQPACKET, socket.SOCK_DGRAM])
def test_messages_are_received_whole(parts: Any, run: Run, kind: int) -> None:
    accepted, peer = socket.socketpair(socket.AF_UNIX, kind)
    sizes = (10, 5000, 60_000, 20_000, 90_000, 10)

    def receives() -> list[int]:
        found = []
        for size in sizes:
            peer.sendall(b"m" * size)
            found.append(len(ours.recv(100_000)))
        return found

    with parts.FiberSocket.adopt(accepted) as ours, peer:
        assert run(receives) == list(sizes)


@pytest.mark.parametrize("use", ["recv", "recv_into", "recvfrom", "recvmsg"])
def test_a_descriptor_that_the_handler_sets_blocking_does_not_hold_the_loop(
    hub: Any, pair: Any, use: str
) -> None:
    ours, peer = pair
    got: list[bytes] = []

    def read() -> None:
        os.set_blocking(ours.fileno(), True)
        room = bytearray(5)
        if use == "recv_into":
            got.append(bytes(room[: ours.recv_into(room)]))
        else:
            found = getattr(ours, use)(5)
            got.append(found if use == "recv" else found[0])

    hub.spawn(read)
    hub.spawn(peer.sendall, b"hello")  # runs only if the first one parks
    while hub.fibers:
        hub.turn(10)
    assert got == [b"hello"]


def test_a_write_to_a_descriptor_that_was_set_blocking_does_not_hold_the_loop(
    hub: Any, pair: Any
) -> None:
    ours, peer = pair
    size = 16 << 20
    read: list[int] = []

    def write() -> None:
        os.set_blocking(ours.fileno(), True)
        ours.sendall(bytes(size))
        assert ours.sendmsg([b"a"]) == 1
        ours.close()

    def drain() -> None:
        while found := offload(peer.recv, 1 << 20):
            read.append(len(found))

    hub.spawn(write)
    hub.spawn(drain)
    while hub.fibers:
        hub.turn(10)
    assert sum(read) == size + 1
