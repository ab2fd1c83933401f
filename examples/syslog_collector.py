"""A syslog collector: `python syslog_collector.py`, then `logger -n 127.0.0.1 -P 5140 -d hello`.

With a Unix socket it also says who logs: `python syslog_collector.py unixgram:log.sock`, then
`logger -d -u log.sock hello`.
"""

import re
import sys

import everserve

SEVERITIES = ["emergency", "alert", "critical", "error", "warning", "notice", "info", "debug"]


class Collect(everserve.DatagramRequestHandler):
    def handle(self) -> None:
        text = self.packet.decode(errors="replace").rstrip("\n\0")
        match = re.match(r"<(\d{1,3})>(.*)", text, re.DOTALL)
        if match is None:
            return
        facility, severity = divmod(int(match[1]), 8)
        sender = self.client_address[0] if self.client_address else "local"
        if self.peer.credentials is not None:
            sender = f"pid {self.peer.credentials.pid}"
        print(f"{sender} {facility} {SEVERITIES[severity]} {match[2]!r}", flush=True)


if __name__ == "__main__":
    addresses = sys.argv[1:] or ["udp://127.0.0.1:5140"]
    everserve.serve(Collect, *addresses, concurrency="serial", receive_buffer=1 << 20)
