"""The command line that all servers of the benchmarks share.

``--port 0`` lets the system choose; the port is printed as the first line on standard output, once
the server listens. ``--mode`` is the task of the server: ``echo`` sends back the bytes of each read,
``lines`` handles and answers each line separately, ``udp`` echoes datagrams. With ``--tls FILE`` a
server uses TLS 1.3 with the key and the certificate in that file.
"""

import argparse
import ssl

HOST = "127.0.0.1"

#: The kernel limits it to net.core.somaxconn; no peer must lose a connection to a short queue.
BACKLOG = 4096

#: The largest read, where the server may choose: that of uvloop.
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
    """The defaults of ``ssl``, from TLS 1.3 on; ``None`` if no file is given."""
    if path is None:
        return None
    context = kind(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(path)
    return context


def announce(port: int) -> None:
    """Print the port of this server for the runner."""
    print(port, flush=True)


def warm_allocator() -> None:
    """Spare asyncio three system calls for each read.

    asyncio reads into a new buffer of 256 KiB each time. glibc maps and unmaps memory for a block of
    that size until the program has freed a larger one once. A long-lived program soon does that, a
    small server never. Without this line asyncio reaches a third of its speed.
    """
    bytearray(1 << 20)
