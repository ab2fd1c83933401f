"""A chat: what one client writes, all others read: `python chat.py`, then some `nc 127.0.0.1 9999`."""

import everserve
from everserve import fibers


class Chat(everserve.StreamRequestHandler):
    members: dict["Chat", str] = {}
    lock = fibers.Lock()  # one that may be held while its holder waits, in every strategy

    def handle(self) -> None:
        self.wfile.write(b"your name? ")
        name = self.rfile.readline(64).decode(errors="replace").strip() or "anonymous"
        with self.lock:
            self.members[self] = name
        self.wfile.write(f"* hello, {name}\n".encode())
        self.send_to_others(f"* {name} is here")
        for line in self.rfile:
            self.send_to_others(f"{name}: {line.decode(errors='replace').rstrip()}")

    def finish(self) -> None:
        with self.lock:
            name = self.members.pop(self, None)
        if name:
            self.send_to_others(f"* {name} has left")
        super().finish()

    def send_to_others(self, text: str) -> None:
        with self.lock:  # all read the lines in the same order
            for member in [other for other in self.members if other is not self]:
                try:
                    member.wfile.write(f"{text}\n".encode())
                except OSError:
                    pass  # it has gone: its own handler will notice


if __name__ == "__main__":
    everserve.serve(Chat, "tcp://127.0.0.1:9999", concurrency="fibers")
