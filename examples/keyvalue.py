"""A key-value store, a command a line: SET key value, GET key, DEL key, KEYS, QUIT."""

import everserve


class Store(everserve.LineRequestHandler):
    values: dict[bytes, bytes] = {}

    def handle_message(self, line: bytes) -> bytes:
        match line.split(maxsplit=2):
            case [b"SET", key, value]:
                self.values[key] = value
                return b"OK"
            case [b"GET", key]:
                return self.values.get(key, b"(none)")
            case [b"DEL", key]:
                return b"OK" if self.values.pop(key, None) is not None else b"(none)"
            case [b"KEYS"]:
                return b" ".join(sorted(self.values))
            case [b"QUIT"]:
                self.disconnect()
                return b"BYE"
        return b"ERROR: SET key value, GET key, DEL key, KEYS, QUIT"


if __name__ == "__main__":
    everserve.serve(Store, "tcp://127.0.0.1:9999")
