"""A TCP server that answers each line in upper case: `python upper_tcp.py`, `nc 127.0.0.1 9999`."""

import everserve


class Upper(everserve.StreamRequestHandler):
    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line.upper())


if __name__ == "__main__":
    everserve.serve(Upper, "tcp://127.0.0.1:9999")
