"""A key-value store, a command a line: SET key value, GET key, DEL key, KEYS, QUIT."""

import everserve


class Store(everserve.StreamRequestHandler):
    values: dict[str, str] = {}

    def handle(self) -> None:
        for line in self.rfile:
            match line.decode(errors="replace").split(maxsplit=2):
                case ["SET", key, value]:
                    self.values[key] = value.rstrip("\r\n")
                    self.reply("OK")
                case ["GET", key]:
                    self.reply(self.values.get(key, "(none)"))
                case ["DEL", key]:
                    self.reply("OK" if self.values.pop(key, None) is not None else "(none)")
                case ["KEYS"]:
                    self.reply(" ".join(sorted(self.values)))
                case ["QUIT"]:
                    return self.reply("BYE")
                case _:
                    self.reply("ERROR: SET key value, GET key, DEL key, KEYS, QUIT")
        return None

    def reply(self, text: str) -> None:
        self.wfile.write(f"{text}\n".encode())


if __name__ == "__main__":
    everserve.serve(Store, "tcp://127.0.0.1:9999")
