"""The works: what is measured, the peers of each, and the targets.

A work puts one kind of load on each of its peers. A target compares a server of everserve with a peer
in the same round, or with a constant.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks import measure
from benchmarks.programs import CIPHER

#: 64 connections and 128 bytes: the shape of most published figures of this kind.
SMALL = ("echo", "--connections", "64", "--bytes", "128")
SEGMENT = ("echo", "--connections", "64", "--bytes", "32", "--lines", "64")
TLS = ("--tls", CIPHER)

STREAM_PEERS = (
    "everserve",
    "everserve-asyncio",
    "c",
    "uvloop-protocol",
    "uvloop-streams",
    "asyncio-protocol",
    "asyncio-streams",
    "gevent",
    "std-threading",
    "twisted",
    "trio",
)
TLS_PEERS = ("everserve", "uvloop-protocol", "asyncio-protocol", "gevent")


@dataclass(frozen=True)
class Column:
    """A measured value that is reported beside the compared one, times ``scale``."""

    figure: str
    title: str
    scale: float = 1
    digits: int = 2

    def formatted(self, value: float) -> str:
        return f"{value * self.scale:,.{self.digits}f}"


LATENCIES = (Column("p50_us", "p50, ms", 1e-3), Column("p99_us", "p99, ms", 1e-3))
WAKEUPS = (Column("wakeups", "wake-ups/s", digits=1),)
SHARE = Column("share", "share of alone")
REFUSALS = (Column("per_second", "refusals/s", digits=0),)


@dataclass(frozen=True)
class Target:
    """``peer`` must reach at least or at most this: a multiple of ``against``, or a constant."""

    peer: str
    against: str | None = None
    least: float | None = None
    most: float | None = None

    def met(self, value: float) -> bool:
        if self.least is not None and value < self.least:
            return False
        return self.most is None or value <= self.most


@dataclass(frozen=True)
class Work:
    """A load, its servers, and the form of its report.

    ``mode`` is that of the servers; ``arguments`` are those of the load generator, its own mode first.
    ``figure`` names the compared value; it is reported times ``scale``. ``constant`` names another
    value, a share of something, for the targets without a peer. ``columns`` are reported beside the
    figure.
    """

    name: str
    title: str
    mode: str
    measure: measure.Measure
    arguments: tuple[str, ...]
    peers: tuple[str, ...]
    targets: tuple[Target, ...] = ()
    figure: str = "per_second"
    unit: str = "requests/s"
    scale: float = 1
    digits: int = 0
    constant: str = ""
    less_is_better: bool = False
    group: str = ""
    columns: tuple[Column, ...] = LATENCIES

    @property
    def judged(self) -> str:
        """The measured value for the targets without a peer."""
        return self.constant or self.figure

    def formatted(self, value: float) -> str:
        return f"{value * self.scale:,.{self.digits}f}"


def _faster(*ratios: tuple[float, str], peer: str = "everserve") -> tuple[Target, ...]:
    return tuple(Target(peer, against, least=least) for least, against in ratios)


_ECHO_TARGETS = _faster(
    (1.05, "uvloop-protocol"), (1.6, "uvloop-streams"), (2, "gevent"), (0.88, "c")
)
_LARGE_PEERS = STREAM_PEERS[:9]


def _refused(name: str, title: str, *arguments: str) -> Work:
    peers = (f"everserve-{name}", f"everserve-threads-{name}")
    return Work(
        f"refused-{name}",
        f"{title}: processor time of the server for each",
        mode="echo",
        measure=measure.refused,
        arguments=("refused", *SMALL[1:], *arguments),
        peers=peers,
        targets=tuple(Target(peer, most=25) for peer in peers),
        figure="cpu_us",
        unit="us",
        digits=1,
        less_is_better=True,
        columns=REFUSALS,
        group="internet",
    )


DATAGRAM_PEERS = (
    "everserve",
    "everserve-serial",
    "everserve-serial-armed",
    "c",
    "go-datagram",
    "uvloop-datagram",
    "asyncio-datagram",
    "std-udp",
)


SESSION_PEERS = ("everserve", *DATAGRAM_PEERS[3:])


def _cheaper(peer: str, *ratios: tuple[float, str]) -> tuple[Target, ...]:
    return tuple(Target(peer, against, most=1 / ratio) for ratio, against in ratios)


def _cost(
    name: str,
    title: str,
    *,
    mode: str,
    arguments: tuple[str, ...],
    peers: tuple[str, ...],
    targets: tuple[Target, ...],
    group: str,
    unit: str = "replies/s",
) -> Work:
    """A work whose figure is the processor time of the server for each reply, in microseconds."""
    return Work(
        name,
        f"{title}: processor time of the server for each",
        mode=mode,
        measure=measure.cost,
        arguments=arguments,
        peers=peers,
        targets=targets,
        figure="cpu_us",
        unit="us",
        digits=2,
        less_is_better=True,
        columns=(Column("per_second", unit, digits=0),),
        group=group,
    )


def _datagrams(
    name: str,
    title: str,
    *arguments: str,
    targets: tuple[Target, ...],
    mode: str = "udp",
    load: str = "udp",
    peers: tuple[str, ...] = DATAGRAM_PEERS,
) -> Work:
    return _cost(
        name,
        title,
        mode=mode,
        arguments=(load, *arguments),
        peers=peers,
        targets=targets,
        group="packets",
    )


def _coroutines(name: str, title: str, mode: str, arguments: tuple[str, ...], least: float) -> Work:
    return _cost(
        f"asyncio-{name}",
        f"{title}, 64 connections, coroutines on uvloop",
        mode=mode,
        arguments=arguments,
        peers=("everserve-asyncio", "uvloop-streams", "everserve"),
        targets=_cheaper("everserve-asyncio", (least, "uvloop-streams")),
        group="asyncio",
    )


def _messages(
    name: str,
    title: str,
    arguments: tuple[str, ...],
    *,
    peers: tuple[str, ...],
    targets: tuple[tuple[float, str], ...],
    mode: str = "lines",
) -> Work:
    return _cost(
        name,
        f"{title}, 64 connections, a message handler",
        mode=mode,
        arguments=arguments,
        peers=("everserve-messages", *peers),
        targets=_cheaper("everserve-messages", *targets),
        group="message-handlers",
        unit="segments/s",
    )


_ALL = (
    Work(
        "echo",
        "Echo of 128 B, 64 connections, recv and sendall",
        mode="echo",
        measure=measure.steady,
        arguments=SMALL,
        peers=STREAM_PEERS,
        targets=_ECHO_TARGETS,
    ),
    Work(
        "lines",
        "A line of 128 B at a time, 64 connections, rfile and wfile",
        mode="lines",
        measure=measure.steady,
        arguments=SMALL,
        peers=STREAM_PEERS,
        targets=_ECHO_TARGETS,
    ),
    Work(
        "pipelined",
        "64 lines of 32 B in one segment, 64 connections, rfile and wfile",
        mode="lines",
        measure=measure.steady,
        arguments=SEGMENT,
        peers=(*STREAM_PEERS, "uvloop-bulk"),
        targets=_faster(
            (35, "uvloop-streams"), (35, "gevent"), (35, "std-threading"), (2, "uvloop-protocol")
        ),
        figure="lines_per_second",
        unit="lines/s",
    ),
    _coroutines("echo", "Echo of 128 B", "echo", SMALL, 1.1),
    _coroutines("lines", "A line of 128 B at a time", "lines", SMALL, 1.1),
    _coroutines("pipelined", "64 lines of 32 B in one segment", "lines", SEGMENT, 8),
    _messages(
        "messages",
        "64 lines of 32 B in one segment",
        SEGMENT,
        peers=("everserve", "uvloop-protocol", "go-stream"),
        targets=((1.1, "everserve"), (3, "uvloop-protocol"), (0.8, "go-stream")),
    ),
    _messages(
        "messages-single",
        "A line of 128 B at a time",
        SMALL,
        peers=("everserve", "uvloop-protocol", "go-stream"),
        targets=((1, "uvloop-protocol"),),
    ),
    _messages(
        "messages-frames",
        "32 frames of 100 B in one segment",
        ("echo", "--connections", "64", "--bytes", "104", "--lines", "32", "--framed", "1"),
        mode="frames",
        peers=("uvloop-protocol", "asyncio-streams"),
        targets=((15, "asyncio-streams"), (2, "uvloop-protocol")),
    ),
    Work(
        "messages-pool",
        "A line of 128 B at a time, 64 connections, a message handler in a pool",
        mode="lines",
        measure=measure.steady,
        arguments=SMALL,
        peers=("everserve-messages-pool", "everserve-pool", "std-threading"),
        targets=_faster((1, "std-threading"), peer="everserve-messages-pool"),
        group="message-handlers",
    ),
    Work(
        "messages-blocking",
        "2,000 connections, a message handler that blocks for 10 ms in one of 64 threads",
        mode="lines",
        measure=measure.steady,
        arguments=("echo", "--connections", "2000", "--bytes", "32"),
        peers=("everserve-messages-sleep",),
        targets=(Target("everserve-messages-sleep", least=0.9 * 64 / 0.01),),
        group="message-handlers",
    ),
    Work(
        "messages-memory",
        "Memory of an idle connection of a message handler that has been used",
        mode="lines",
        measure=measure.held,
        arguments=SMALL,
        peers=("everserve-messages", "everserve", "uvloop-protocol"),
        targets=(Target("everserve-messages", most=1.5),),
        figure="kilobytes",
        unit="KB",
        digits=2,
        less_is_better=True,
        columns=WAKEUPS,
        group="message-handlers",
    ),
    Work(
        "active",
        "64 active among many open connections, echo of 128 B",
        mode="echo",
        measure=measure.among_idle,
        arguments=SMALL,
        peers=("everserve", "c", "uvloop-protocol", "gevent", "std-threading"),
        targets=(Target("everserve", least=0.9),),
        constant="share",
        columns=(*LATENCIES, SHARE),
    ),
    Work(
        "large-16k",
        "Echo of 16 KiB, 64 connections",
        mode="echo",
        measure=measure.steady,
        arguments=("echo", "--connections", "64", "--bytes", "16384"),
        peers=_LARGE_PEERS,
        targets=_faster((1, "uvloop-protocol")),
        figure="bytes_per_second",
        unit="MB/s",
        scale=1e-6,
        group="large",
    ),
    Work(
        "large-1m",
        "Echo of 1 MiB, 16 connections",
        mode="echo",
        measure=measure.steady,
        arguments=("echo", "--connections", "16", "--bytes", "1048576"),
        peers=_LARGE_PEERS,
        targets=_faster((1, "uvloop-protocol")),
        figure="bytes_per_second",
        unit="MB/s",
        scale=1e-6,
        group="large",
    ),
    Work(
        "connect",
        "New connections, one request each, reset by the client",
        mode="echo",
        measure=measure.steady,
        arguments=("connect", *SMALL[1:]),
        peers=(
            "everserve",
            "c",
            "uvloop-protocol",
            "uvloop-streams",
            "gevent",
            "gevent-plain",
            "std-threading",
        ),
        targets=_faster((0.95, "uvloop-protocol"), (3, "gevent")),
        unit="connections/s",
    ),
    Work(
        "memory",
        "Memory of an idle connection that has been used",
        mode="echo",
        measure=measure.held,
        arguments=SMALL,
        peers=(
            "everserve",
            "c",
            "uvloop-protocol",
            "uvloop-streams",
            "asyncio-streams",
            "gevent",
            "std-threading",
        ),
        targets=(Target("everserve", most=6.5),),
        figure="kilobytes",
        unit="KB",
        digits=1,
        less_is_better=True,
        columns=WAKEUPS,
    ),
    Work(
        "pure",
        "The engine in pure Python, echo of 128 B",
        mode="echo",
        measure=measure.steady,
        arguments=SMALL,
        peers=("everserve-python", "asyncio-streams", "gevent"),
        targets=_faster((1, "asyncio-streams"), (1, "gevent"), peer="everserve-python"),
    ),
    Work(
        "threads-coalesce",
        "Threads, 64 lines of 32 B in one segment",
        mode="lines",
        measure=measure.steady,
        arguments=SEGMENT,
        peers=("everserve-threads-coalesce", "everserve-threads", "std-threading"),
        targets=_faster((15, "std-threading"), peer="everserve-threads-coalesce"),
        figure="lines_per_second",
        unit="lines/s",
    ),
    Work(
        "idle",
        "Processor time of an idle server with many connections",
        mode="echo",
        measure=measure.held,
        arguments=SMALL,
        peers=("everserve", "c", "uvloop-protocol", "gevent", "std-threading"),
        targets=(Target("everserve", most=0),),
        figure="cpu_ms",
        unit="ms/s",
        digits=3,
        less_is_better=True,
        columns=WAKEUPS,
    ),
    _datagrams(
        "udp",
        "Datagrams of 64 B, 8 sockets with 32 in flight, echoed",
        *("--connections", "8", "--window", "32", "--bytes", "64"),
        targets=(
            *_cheaper("everserve-serial", (2.1, "std-udp"), (1.5, "uvloop-datagram")),
            *_cheaper("everserve-serial", (1, "go-datagram"), (0.75, "c")),
            *_cheaper("everserve", (1.8, "std-udp")),
            *_cheaper("everserve-serial-armed", (1.2, "std-udp")),
        ),
    ),
    _datagrams(
        "udp-4k",
        "Datagrams of 4 KiB, 8 sockets with 32 in flight, echoed",
        *("--connections", "8", "--window", "32", "--bytes", "4096"),
        targets=_cheaper("everserve-serial", (1.3, "std-udp")),
    ),
    Work(
        "udp-one",
        "Datagrams of 64 B, one in flight, echoed: time from one to its reply, the median",
        mode="udp",
        measure=measure.cost,
        arguments=("udp", "--connections", "1", "--window", "1", "--bytes", "64"),
        peers=DATAGRAM_PEERS,
        targets=(Target("everserve-serial", "std-udp", most=1.05),),
        figure="p50_us",
        unit="us",
        digits=1,
        less_is_better=True,
        columns=(Column("cpu_us", "us of the server"), Column("p99_us", "p99, us", digits=1)),
        group="packets",
    ),
    _datagrams(
        "udp-collect",
        "Datagrams of 64 B, 8 sockets with 32 in flight, counted, one of 32 answered",
        *("--connections", "8", "--window", "32", "--bytes", "64"),
        targets=_cheaper("everserve-serial", (3, "std-udp"), (1.2, "go-datagram")),
        mode="collect",
        load="collect",
    ),
    _datagrams(
        "udp-sessions",
        "Datagrams of 64 B, 1,000 sockets with 8 in flight, a session of fibers each, echoed",
        *("--connections", "1000", "--window", "8", "--bytes", "64"),
        targets=_cheaper("everserve", (1.5, "std-udp")),
        mode="sessions",
        peers=SESSION_PEERS,
    ),
    Work(
        "armed",
        "All limits and deadlines, echo of 128 B, 64 connections",
        mode="echo",
        measure=measure.steady,
        arguments=SMALL,
        peers=("everserve-armed", "everserve"),
        targets=_faster((0.95, "everserve"), peer="everserve-armed"),
        group="internet",
    ),
    Work(
        "drips",
        "A line of 128 B at a time, 64 connections, among many that send a byte a second",
        mode="lines",
        measure=measure.among_drips,
        arguments=SMALL[1:],
        peers=("everserve-patient",),
        targets=(Target("everserve-patient", least=0.9),),
        constant="share",
        columns=(
            *LATENCIES,
            SHARE,
            Column("last_cut", "s late, the last one cut"),
            Column("peak_mb", "MB more at the peak", digits=1),
        ),
        group="internet",
    ),
    _refused("full", "Refused at max_connections", "--idle", "1"),
    _refused("denied", "Refused by access"),
    Work(
        "tls-echo",
        "TLS 1.3, echo of 128 B, 64 connections",
        mode="tls",
        measure=measure.steady,
        arguments=(*SMALL, *TLS),
        peers=TLS_PEERS,
        targets=_faster((1.1, "uvloop-protocol"), (1.5, "gevent")),
        group="tls",
    ),
    Work(
        "tls-handshakes",
        "TLS 1.3, new connections, a full handshake and one request each",
        mode="tls",
        measure=measure.steady,
        arguments=("handshake", *SMALL[1:], *TLS),
        peers=(*TLS_PEERS, "everserve-two-tickets"),
        targets=_faster((1, "uvloop-protocol"), (1, "gevent")),
        unit="handshakes/s",
        group="tls",
    ),
    Work(
        "tls-large",
        "TLS 1.3, echo of 1 MiB, 16 connections",
        mode="tls",
        measure=measure.steady,
        arguments=("echo", "--connections", "16", "--bytes", "1048576", *TLS),
        peers=TLS_PEERS,
        targets=_faster((1, "uvloop-protocol")),
        figure="bytes_per_second",
        unit="MB/s",
        scale=1e-6,
        group="tls",
    ),
)

WORKS: Mapping[str, Work] = {work.name: work for work in _ALL}


def chosen(names: list[str]) -> list[Work]:
    """The works of these names or groups, in the order of the table. KeyError for an unknown one."""
    known = {*WORKS, *(work.group for work in _ALL if work.group)}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise KeyError(f"no work {', '.join(unknown)}: choose from {', '.join(sorted(known))}")
    return [work for work in _ALL if work.name in names or work.group in names]
