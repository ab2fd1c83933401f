"""The standard library: ``socketserver.UDPServer``, one datagram after the other."""

import socketserver

from command_line import HOST, announce, parser


class Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        data, sock = self.request
        sock.sendto(data, self.client_address)


COUNTS = {"all": 0}


class Collect(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        COUNTS["all"] += 1
        data, sock = self.request
        if data[0] == 63:  # a question
            sock.sendto(b"%d" % COUNTS["all"], self.client_address)


def main() -> None:
    options = parser(modes=("udp", "collect")).parse_args()
    handler = Collect if options.mode == "collect" else Echo
    with socketserver.UDPServer((HOST, options.port), handler) as server:
        announce(server.server_address[1])
        server.serve_forever()


if __name__ == "__main__":
    main()
