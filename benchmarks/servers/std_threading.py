"""The standard library: ``socketserver.ThreadingTCPServer``, a thread for each connection."""

import socketserver

from command_line import BACKLOG, HOST, READ_BYTES, announce, parser


class Echo(socketserver.StreamRequestHandler):
    disable_nagle_algorithm = True

    def handle(self) -> None:
        try:
            while data := self.request.recv(READ_BYTES):
                self.request.sendall(data)
        except ConnectionResetError:
            pass  # otherwise a traceback is printed for each client that resets


class Lines(socketserver.StreamRequestHandler):
    disable_nagle_algorithm = True

    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line)


class Server(socketserver.ThreadingTCPServer):
    request_queue_size = BACKLOG
    allow_reuse_address = True
    daemon_threads = True


def main() -> None:
    options = parser().parse_args()
    handler = {"echo": Echo, "lines": Lines}[options.mode]
    with Server((HOST, options.port), handler) as server:
        announce(server.server_address[1])
        server.serve_forever()


if __name__ == "__main__":
    main()
