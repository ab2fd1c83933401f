"""``process.units``: the text of systemd units."""

from __future__ import annotations

from pathlib import Path

import pytest

from everserve.addresses import Address
from everserve.errors import AddressError
from everserve.process.units import Service, Socket


def socket_of(address: str) -> Socket:
    return Socket("web", "app", Address.parse(address))


@pytest.mark.parametrize(
    ("address", "line"),
    [
        ("tcp://*:80", "ListenStream=80"),
        ("tls://127.0.0.1:443", "ListenStream=127.0.0.1:443"),
        ("tcp://localhost:80", "ListenStream=127.0.0.1:80"),
        ("tcp://[::1]:80", "ListenStream=[::1]:80"),
        ("udp://*:53", "ListenDatagram=53"),
        ("unix:/run/a%b", "ListenStream=/run/a%%b"),
        ("unixgram:/run/log", "ListenDatagram=/run/log"),
        ("unix:@name", "ListenStream=@name"),
    ],
)
def test_the_line_of_an_address(address: str, line: str) -> None:
    lines = socket_of(address).text().splitlines()
    assert line in lines
    assert "FileDescriptorName=web" in lines
    assert "Service=app.service" in lines


def test_a_relative_path_is_made_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert f"ListenStream={tmp_path}/s\n" in socket_of("unix:s").text()


@pytest.mark.parametrize("address", ["fd://3", "systemd:web", "tcp://*:0", "tcp://example.org:80"])
def test_what_systemd_cannot_open(address: str) -> None:
    with pytest.raises(AddressError, match="the service manager"):
        socket_of(address).text()


def service(**more: object) -> list[str]:
    given = {"command": ["/usr/bin/everserve", "run", "a:B"], "folder": "/srv/app"} | more
    made = Service(name="app", sockets=[socket_of("tcp://*:80")], **given)  # type: ignore[arg-type]
    return made.text().splitlines()


def test_words_are_quoted_for_systemd() -> None:
    words = ["/usr/bin/x", "100%", "$HOME", "a b", 'say "no"', "back\\slash", "a\nb", "tcp://*:1"]
    (line,) = (line for line in service(command=words) if line.startswith("ExecStart="))
    assert line == (
        'ExecStart=/usr/bin/x "100%%" "$$HOME" "a b" "say \\"no\\"" "back\\\\slash" "a\\nb" tcp://*:1'
    )


def test_the_user() -> None:
    assert "DynamicUser=yes" in service()
    lines = service(user="app", group="www", umask=0o027)
    assert {"User=app", "Group=www", "UMask=0027"} <= set(lines)
    assert "DynamicUser=yes" not in lines


def test_the_stop_has_the_time_of_the_grace() -> None:
    assert "TimeoutStopSec=36" in service(grace=30.0)
    assert "TimeoutStopSec=infinity" in service(grace=float("inf"))


def test_a_program_in_a_home_can_be_read() -> None:
    assert "ProtectHome=yes" in service()
    assert "ProtectHome=read-only" in service(folder="/home/me/app")
    assert "ProtectHome=read-only" in service(command=["/root/bin/python"])


def test_a_reload_where_there_is_something_to_reload() -> None:
    assert not any(line.startswith("ExecReload=") for line in service())
    assert "ExecReload=/bin/kill -HUP $MAINPID" in service(reloads=True)
