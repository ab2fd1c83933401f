"""A UDP server that answers each datagram in upper case: `python upper_udp.py`."""

import everserve


class Upper(everserve.DatagramRequestHandler):
    def handle(self) -> None:
        self.wfile.write(self.rfile.read().upper())


if __name__ == "__main__":
    everserve.serve(Upper, "udp://127.0.0.1:9999", concurrency="serial")
