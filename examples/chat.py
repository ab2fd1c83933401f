"""A chat: what one client writes, all others read: `python chat.py`, then some `nc 127.0.0.1 9999`."""

import everserve

room = everserve.Channel()


class Chat(everserve.LineRequestHandler):
    name = ""

    def on_connect(self) -> None:
        self.push(b"your name?")

    def handle_message(self, line: bytes) -> None:
        text = line.decode(errors="replace").strip()
        if self.name:
            room.send(f"{self.name}: {text}".encode(), but=self)
        else:
            self.name = text or "anonymous"
            room.send(f"* {self.name} is here".encode())
            room.join(self)
            self.push(f"* hello, {self.name}".encode())

    def on_disconnect(self) -> None:
        if self.name:
            room.send(f"* {self.name} has left".encode())


if __name__ == "__main__":
    everserve.serve(Chat, "tcp://127.0.0.1:9999", concurrency="fibers")
