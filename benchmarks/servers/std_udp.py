"""The standard library: ``socketserver.UDPServer``, one datagram after the other."""

import socketserver

from command_line import HOST, announce, parser


class Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        data, sock = self.request
        sock.sendto(data, self.client_address)


def main() -> None:
    options = parser(modes=("udp",)).parse_args()
    with socketserver.UDPServer((HOST, options.port), Echo) as server:
        announce(server.server_address[1])
        server.serve_forever()


if __name__ == "__main__":
    main()
