"""The servers that are compared, everserve's own among them.

A peer is a program in ``servers/`` with its arguments. ``works.py`` lists the peers of each work, and
the targets between them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

STREAMS = {"echo": "echo", "lines": "lines"}
DATAGRAMS = {"udp": "udp", "collect": "collect"}
WITHOUT_SESSIONS = {**DATAGRAMS, "sessions": "udp"}
SECURE = {**STREAMS, "tls": "echo"}
FRAMED = {**SECURE, "frames": "frames"}


@dataclass(frozen=True)
class Peer:
    """A server program in one configuration.

    ``modes`` maps a mode of a work to the ``--mode`` of this program. With ``tls`` the program gets a
    certificate too. ``package`` is the distribution whose version the results list.
    """

    name: str
    title: str
    program: str
    arguments: tuple[str, ...] = ()
    modes: Mapping[str, str] = field(default_factory=lambda: STREAMS)
    package: str | None = None

    @property
    def is_everserve(self) -> bool:
        return self.package == "everserve"


def _everserve(name: str, title: str, *arguments: str, udp: bool = True) -> Peer:
    modes = {**SECURE, **DATAGRAMS, "sessions": "sessions"} if udp else SECURE
    return Peer(name, title, "everserve_server.py", arguments, modes, "everserve")


def _messages(name: str, title: str, concurrency: str) -> Peer:
    arguments = ("--concurrency", concurrency)
    modes = {"lines": "messages", "frames": "frames"}
    return Peer(name, title, "everserve_server.py", arguments, modes, "everserve")


def _set(**options: object) -> list[str]:
    return [f"--set={name}={value}" for name, value in options.items()]


#: No limit is reached, but all are checked. The deadlines are so short that connections are checked
#: while the load runs.
_ARMED = _set(
    max_connections=20_000,
    max_connections_per_peer=20_000,
    accept_rate=1_000_000,
    access="allow 127.0.0.0/8, deny 192.0.2.0/24",
    overload="refuse",
    handshake_timeout=10,
    idle_timeout=1,
    request_timeout=3600,
    write_timeout=1,
    min_receive_rate=64,
)
_ARMED_DATAGRAMS = _set(
    max_connections=20_000,
    max_connections_per_peer=20_000,
    accept_rate=10_000_000,
    access="allow 127.0.0.0/8, deny 192.0.2.0/24",
    overload="refuse",
    request_timeout=3600,
)
_PATIENT = [*_ARMED, *_set(idle_timeout=60, write_timeout=30)]
_FULL = _set(max_connections=1, overload="refuse")
_DENIED = _set(access="deny 127.0.0.0/8")

_ALL = (
    _everserve("everserve", "everserve, fibers", "--concurrency", "fibers"),
    _everserve(
        "everserve-python",
        "everserve, fibers, pure Python",
        *("--concurrency", "fibers", "--engine", "python"),
    ),
    _everserve("everserve-threads", "everserve, threads", "--concurrency", "threads"),
    _everserve(
        "everserve-threads-coalesce",
        "everserve, threads, coalesced writes",
        *("--concurrency", "threads", "--coalesce"),
        udp=False,
    ),
    _everserve("everserve-pool", "everserve, thread pool", "--concurrency", "pool", udp=False),
    _messages("everserve-messages", "everserve, message handler in fibers", "fibers"),
    _messages("everserve-messages-pool", "everserve, message handler in a pool", "pool"),
    Peer(
        "everserve-messages-sleep",
        "everserve, message handler that blocks 10 ms, in a pool",
        "everserve_server.py",
        ("--concurrency", "pool"),
        {"lines": "sleep"},
        "everserve",
    ),
    _everserve("everserve-serial", "everserve, serial", "--concurrency", "serial"),
    _everserve(
        "everserve-asyncio",
        "everserve, asyncio (uvloop)",
        *("--concurrency", "asyncio"),
        udp=False,
    ),
    _everserve("everserve-armed", "everserve, fibers, all limits and deadlines", *_ARMED),
    _everserve("everserve-patient", "everserve, fibers, deadlines of the internet", *_PATIENT),
    _everserve("everserve-full", "everserve, fibers, full", *_FULL),
    _everserve("everserve-denied", "everserve, fibers, access denied", *_DENIED),
    _everserve(
        "everserve-threads-full", "everserve, threads, full", "--concurrency", "threads", *_FULL
    ),
    _everserve(
        "everserve-threads-denied",
        "everserve, threads, access denied",
        *("--concurrency", "threads", *_DENIED),
    ),
    _everserve("everserve-two-tickets", "everserve, fibers, two session tickets", "--tickets", "2"),
    Peer("c", "C, epoll (the limit)", "c_epoll.c", modes={**STREAMS, **WITHOUT_SESSIONS}),
    Peer(
        "uvloop-protocol",
        "uvloop Protocol",
        "uvloop_protocol.py",
        modes=FRAMED,
        package="uvloop",
    ),
    Peer(
        "uvloop-bulk",
        "uvloop Protocol, no code for each line",
        "uvloop_protocol.py",
        modes={"lines": "bulk"},
        package="uvloop",
    ),
    Peer("uvloop-streams", "uvloop streams", "uvloop_streams.py", package="uvloop"),
    Peer("go-stream", "Go, bufio", "go_stream.go", modes={"lines": "lines"}),
    Peer("asyncio-protocol", "asyncio Protocol", "asyncio_protocol.py", modes=SECURE),
    Peer(
        "asyncio-streams",
        "asyncio streams",
        "asyncio_streams.py",
        modes={**STREAMS, "frames": "frames"},
    ),
    Peer("gevent", "gevent", "gevent_server.py", modes=SECURE, package="gevent"),
    Peer(
        "gevent-plain",
        "gevent, resets not caught",
        "gevent_server.py",
        ("--plain",),
        modes={"echo": "echo"},
        package="gevent",
    ),
    Peer("std-threading", "ThreadingTCPServer (standard library)", "std_threading.py"),
    Peer("twisted", "Twisted", "twisted_server.py", package="twisted"),
    Peer("trio", "trio", "trio_server.py", package="trio"),
    _everserve(
        "everserve-serial-armed",
        "everserve, serial, all limits and a subscriber",
        *("--concurrency", "serial", "--subscribe", *_ARMED_DATAGRAMS),
    ),
    Peer("go-datagram", "Go, ReadFrom and WriteTo", "go_datagram.go", modes=WITHOUT_SESSIONS),
    Peer("std-udp", "UDPServer (standard library)", "std_udp.py", modes=WITHOUT_SESSIONS),
    Peer("asyncio-datagram", "asyncio, datagrams", "asyncio_datagram.py", modes=WITHOUT_SESSIONS),
    Peer(
        "uvloop-datagram",
        "uvloop, datagrams",
        "uvloop_datagram.py",
        modes=WITHOUT_SESSIONS,
        package="uvloop",
    ),
)

PEERS: Mapping[str, Peer] = {peer.name: peer for peer in _ALL}

#: The distributions whose versions the results list.
PACKAGES = ("everserve", "greenlet", "uvloop", "gevent", "twisted", "trio")
