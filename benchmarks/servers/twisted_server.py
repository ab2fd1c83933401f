"""Twisted: a Protocol, and for lines its LineOnlyReceiver, on the epoll reactor."""

from command_line import BACKLOG, HOST, announce, parser
from twisted.internet import epollreactor

epollreactor.install()

from twisted.internet import protocol, reactor  # noqa: E402 - the reactor is chosen before
from twisted.protocols import basic  # noqa: E402


class Echo(protocol.Protocol):
    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data)


class Lines(basic.LineOnlyReceiver):
    delimiter = b"\n"

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)

    def lineReceived(self, line: bytes) -> None:
        self.sendLine(line)


def main() -> None:
    options = parser().parse_args()
    handler = {"echo": Echo, "lines": Lines}[options.mode]
    factory = protocol.Factory.forProtocol(handler)
    factory.noisy = False
    listener = reactor.listenTCP(options.port, factory, backlog=BACKLOG, interface=HOST)
    announce(listener.getHost().port)
    reactor.run()


if __name__ == "__main__":
    main()
