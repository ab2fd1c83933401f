"""A device gateway: devices stay connected on port 9998, operators command them on port 9999.

A device sends its name, then reports. An operator sends `list`, `all COMMAND` or `NAME COMMAND`.
"""

import everserve

devices, operators = everserve.Channel(), everserve.Channel()


class Device(everserve.LineRequestHandler):
    outbox_policy = "disconnect"  # a device that does not read must not hold up the others

    def handle_message(self, line: bytes) -> None:
        if self.key is None:
            self.key = line
            devices.join(self)
        else:
            operators.send(self.key + b": " + line)


class Operator(everserve.LineRequestHandler):
    gateway: everserve.BaseServer  # that of the devices

    def on_connect(self) -> None:
        operators.join(self)

    def handle_message(self, line: bytes) -> bytes:
        name, _, command = line.partition(b" ")
        if name == b"list":
            return b"%d devices" % len(devices)
        if name == b"all":
            return b"sent to %d devices" % devices.send(command)
        device = self.gateway.connections.get(name)
        return b"sent" if device and device.push(command) else b"no device " + name


if __name__ == "__main__":
    addresses = {"tcp://127.0.0.1:9998": Device, "tcp://127.0.0.1:9999": Operator}
    everserve.serve(addresses, on_ready=lambda servers: setattr(Operator, "gateway", servers[0]))
