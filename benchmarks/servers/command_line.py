"""The command line that all servers of the benchmarks share.

``--port 0`` lets the system choose; the port is printed as the first line on standard output, once
the server listens. ``--mode`` says what is done with what arrives: ``echo`` sends back what each
read brought, ``lines`` treats and answers every line by itself, ``udp`` echoes datagrams. With
``--tls FILE`` a server speaks TLS 1.3 with the key and the certificate in that file.
"""

import argparse
import ssl

HOST = "127.0.0.1"

#: Cut down to net.core.somaxconn by the kernel; no peer shall lose a connection to a short queue.
BACKLOG = 4096

#: The most bytes asked for by one read, where the server may choose: what uvloop reads at most.
READ_BYTES = 262144


def parser(*, modes: tuple[str, ...] = ("echo", "lines")) -> argparse.ArgumentParser:
    """The options of every server; a server may add its own."""
    options = argparse.ArgumentParser()
    options.add_argument("--port", type=int, default=0)
    options.add_argument("--mode", choices=modes, default=modes[0])
    options.add_argument("--tls", metavar="FILE", help="PEM: a key and its certificate")
    return options


def tls_context(
    path: str | None, kind: type[ssl.SSLContext] = ssl.SSLContext
) -> ssl.SSLContext | None:
    """What ``ssl`` does by default, from TLS 1.3 on; ``None`` where no file is given."""
    if path is None:
        return None
    context = kind(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(path)
    return context


def announce(port: int) -> None:
    """Tell the runner where this server listens."""
    print(port, flush=True)


def warm_allocator() -> None:
    """Spare asyncio three system calls for each read.

    asyncio reads into a new buffer of 256 KiB each time. glibc maps and unmaps memory for a block
    of that size until the program has once freed a larger one, which in a long-lived program it
    soon has, and in a small server never. Without this line asyncio reaches a third of its speed.
    """
    bytearray(1 << 20)
