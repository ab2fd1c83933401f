"""systemd units for a server, as text: a hardened service, and the sockets that it is passed.

systemd opens the sockets, so the service needs no rights of root, and its restart refuses no one: what
comes meanwhile waits in their queues. ``everserve unit`` prints them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from everserve.addresses import Address
from everserve.errors import AddressError
from everserve.process.run import LONGEST_STOP

__all__ = ["Service", "Socket"]

_HARDENING = """\
CapabilityBoundingSet=
NoNewPrivileges=yes
LockPersonality=yes
PrivateDevices=yes
PrivateTmp=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProtectSystem=strict
RemoveIPC=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
SystemCallFilter=@system-service
"""
"""systemd.exec(5): what a server of sockets that are open already can do without."""

_HOMES = ("/home/", "/root/", "/run/user/")
"""What ``ProtectHome=yes`` hides."""

_WATCHDOG = 30
"""Seconds without a turn of the accept loop after which systemd starts the service anew."""

_PLAIN = re.compile(r"[\w@:,./=+\[\]*-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Socket:
    """One ``.socket`` unit. ``settings`` are further lines of its section, such as ``NoDelay=yes``."""

    name: str
    service: str
    address: Address
    settings: tuple[str, ...] = ()

    def text(self) -> str:
        """The unit. Raises ``AddressError`` for an address that systemd cannot open."""
        lines = [f"{self._kind()}={_specifiers(self._location())}"]
        lines += [f"FileDescriptorName={self.name}", f"Service={self.service}.service"]
        return _unit(
            {
                "Unit": [f"Description=Socket of {self.service}: {_specifiers(str(self.address))}"],
                "Socket": [*lines, *self.settings],
                "Install": ["WantedBy=sockets.target"],
            }
        )

    def _kind(self) -> str:
        return "ListenDatagram" if self.address.scheme in ("udp", "unixgram") else "ListenStream"

    def _location(self) -> str:
        address = self.address
        if address.is_unix:
            path = address.path
            return path.replace("\0", "@", 1) if path.startswith("\0") else os.path.abspath(path)
        if address.scheme not in ("tcp", "tls", "udp"):
            raise AddressError(f"{address}: write the address that the service manager is to open")
        if address.port == 0:
            raise AddressError(f"{address}: the service manager needs a port")
        if address.host == "":
            return str(address.port)
        host = "127.0.0.1" if address.host == "localhost" else address.host
        if ":" not in host and not re.fullmatch(r"[0-9.]+", host):
            raise AddressError(f"{address}: the service manager looks up no names, write a number")
        return f"[{host}]:{address.port}" if ":" in host else f"{host}:{address.port}"


@dataclass(frozen=True, slots=True)
class Service:
    """One ``.service`` unit. ``command`` is the words of the command line, ``grace`` that of the stop.

    Without a ``user`` it gets one of its own, which exists as long as it runs. ``descriptors`` is how
    many the process may have, and ``reloads`` whether it reads files anew at SIGHUP.
    """

    name: str
    command: Sequence[str]
    folder: str
    sockets: Sequence[Socket]
    user: str | None = None
    group: str | None = None
    umask: int | None = None
    grace: float = 5.0
    descriptors: int = 16_384
    reloads: bool = False

    def text(self) -> str:
        """The unit."""
        sockets = " ".join(f"{socket.name}.socket" for socket in self.sockets)
        return _unit(
            {
                "Unit": [
                    f"Description=everserve: {self.name}",
                    f"Requires={sockets}",
                    f"After=network.target {sockets}",
                ],
                "Service": [*self._life(sockets), "", *self._rights()],
                "Install": ["WantedBy=multi-user.target"],
            }
        )

    def _life(self, sockets: str) -> list[str]:
        lines = ["Type=notify", f"WorkingDirectory={_specifiers(self.folder)}"]
        lines += [f"ExecStart={' '.join(map(_quoted, self.command))}"]
        if self.reloads:
            lines += ["ExecReload=/bin/kill -HUP $MAINPID"]
        has_end = self.grace < float("inf")
        stop = str(ceil(self.grace + LONGEST_STOP)) if has_end else "infinity"
        lines += [f"Sockets={sockets}", "Restart=on-failure", "RestartSec=1", "KillMode=mixed"]
        lines += [f"TimeoutStopSec={stop}", f"WatchdogSec={_WATCHDOG}"]
        return [*lines, f"LimitNOFILE={self.descriptors}"]

    def _rights(self) -> list[str]:
        lines = ["DynamicUser=yes"]
        if self.user is not None:
            lines = [f"User={self.user}"]
        if self.group is not None:
            lines += [f"Group={self.group}"]
        umask = 0o077 if self.umask is None else self.umask
        at_home = any(f"{place}/".startswith(_HOMES) for place in (self.folder, self.command[0]))
        lines += [f"UMask={umask:04o}", f"ProtectHome={'read-only' if at_home else 'yes'}"]
        return [*lines, f"StateDirectory={self.name}", *_HARDENING.splitlines()]


def _unit(sections: dict[str, list[str]]) -> str:
    return "\n".join("\n".join([f"[{name}]", *lines, ""]) for name, lines in sections.items())


def _quoted(word: str) -> str:
    """A word of a command line (systemd.service(5))."""
    word = _specifiers(word).replace("$", "$$")
    if _PLAIN.fullmatch(word):
        return word
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _specifiers(text: str) -> str:
    return text.replace("%", "%%")
