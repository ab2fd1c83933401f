"""A statsd-like collector with a report each second, of `name:1|c`, `name:0.3|ms`, `name:5|g`."""

import threading
import time

import everserve

seen: dict[tuple[str, str], list[float]] = {}
lock = threading.Lock()


class Collect(everserve.DatagramRequestHandler):
    def handle(self) -> None:
        with lock:
            for line in self.packet.decode(errors="replace").splitlines():
                try:
                    name, value, kind = line.replace(":", "|", 1).split("|")
                    seen.setdefault((name, kind), []).append(float(value))
                except ValueError:
                    seen.setdefault(("bad lines", "c"), []).append(1)


def report(servers: object) -> None:
    def run() -> None:
        while True:
            time.sleep(1)
            with lock:
                taken = sorted(seen.items())
                seen.clear()
            for (name, kind), values in taken:
                value = {"c": sum(values), "ms": max(values)}.get(kind, values[-1])
                print(f"{name} {value:g} {kind}", flush=True)

    threading.Thread(target=run, daemon=True).start()


if __name__ == "__main__":
    address = "udp://127.0.0.1:8125"
    everserve.serve(Collect, address, concurrency="serial", receive_buffer=1 << 20, on_ready=report)
