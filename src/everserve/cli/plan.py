"""The plan of ``everserve run``: what its options name, read and checked.

Nothing is bound yet, and no handler is loaded; ``operation`` does that.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click
from click.core import ParameterSource

from everserve.cli.output import LOG
from everserve.cli.parameters import NONE
from everserve.cli.target import is_address, split_address
from everserve.errors import AddressError, OptionError
from everserve.observe.logs import configure, configure_from
from everserve.process.identity import Identity
from everserve.process.workforce import Workforce, make_workforce
from everserve.serving import Concurrency
from everserve.sockets.tls import TLS

__all__ = ["Plan", "configure_log", "places_of", "prepare"]


_OF_TLS = ("cert", "key", "password_file", "client_ca", "alpn")


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be served, and by whom: read and checked, with nothing bound and no handler loaded.

    ``pairs`` are each target with each of its addresses; ``options`` those of ``make_group``.
    """

    pairs: list[tuple[str, str]]
    concurrency: Concurrency
    options: dict[str, Any]
    identity: Identity | None
    workforce: Workforce | None
    replaces: bool


def prepare(
    *,
    targets: tuple[str, ...],
    bind: tuple[str, ...],
    concurrency: Concurrency,
    replace: bool,
    **given: Any,
) -> Plan:
    """Read what the options of ``run`` name: the folder, the log, the certificates."""
    take = given.pop
    _stand(take("chdir"), take("umask"))
    identity = Identity.of(take("user"), take("group"))
    configure_log(take("log_level"), take("log_format"), take("log_config"))
    tls = _tls(**{name: take(f"tls_{name}") for name in _OF_TLS})
    workforce = make_workforce(
        take("workers"),
        _plain(take("worker_timeout")),
        take("max_requests"),
        take("max_memory"),
    )
    if workforce is None and replace:
        raise OptionError("--replace is about workers: say how many there are, by --workers")
    options = {name: _plain(value) for name, value in given.items() if value is not None}
    return Plan(_parted(targets, bind), concurrency, options | tls, identity, workforce, replace)


def _plain(value: Any) -> Any:
    return None if value is NONE else value


def _stand(folder: str | None, umask: int | None) -> None:
    """Where the process stands before it reads or makes a file."""
    if folder is not None:
        try:
            os.chdir(folder)
        except OSError as error:
            raise OptionError(f"--chdir {folder}: {error.strerror}") from error
    if umask is not None:
        os.umask(umask)


def _parted(targets: tuple[str, ...], bind: tuple[str, ...]) -> list[tuple[str, str]]:
    """Each target with each address at which it is served."""
    given = [split_address(target) for target in targets]
    _refuse_addresses([target for target, _ in given])
    if len(given) > 1 or given[0][1] is not None:
        _must_use(bind, given)
    pairs = [
        (target, address) for target, own in given for address in (bind if own is None else (own,))
    ]
    addresses = [address for _, address in pairs]
    for address in addresses if len(given) > 1 else ():
        if addresses.count(address) > 1:
            raise AddressError(
                f"two handlers for {address}: give each its own, as in module:Class=ADDRESS"
            )
    return pairs


def _refuse_addresses(targets: list[str]) -> None:
    """Raise ``AddressError`` for an address where a handler is expected."""
    handler = next((name for name in targets if not is_address(name)), "module:Class")
    for target in filter(is_address, targets):
        raise AddressError(
            f"{target!r} is an address, where a handler is expected: write {handler}={target},"
            f" or --bind {target}"
        )


def _must_use(bind: tuple[str, ...], pairs: list[tuple[str, str | None]]) -> None:
    """Raise ``AddressError`` for a ``--bind`` that was given, and that no handler is for."""
    source = click.get_current_context().get_parameter_source("bind")
    given = source is not click.core.ParameterSource.DEFAULT
    if given and all(address is not None for _, address in pairs):
        raise AddressError(f"--bind {bind[0]}: each handler has an address of its own already")


def places_of(
    pairs: list[tuple[str, str]], find: Callable[[str], Any]
) -> tuple[Any, tuple[str, ...]]:
    """The arguments of ``make_group``: a handler and its addresses, or a handler for each address."""
    found = {target: find(target) for target in dict.fromkeys(target for target, _ in pairs)}
    if len(found) == 1:
        return found[pairs[0][0]], tuple(address for _, address in pairs)
    return {address: found[target] for target, address in pairs}, ()


def configure_log(level: str, form: str, config: str | None) -> None:
    """Send the records of the whole program to stderr in one form, or where a file says."""
    warnings.showwarning = _log_warning
    _forget_log()
    if config is None:
        configure(level=level, form=form, stream=LOG, name="")
        return
    context = click.get_current_context()
    given = [
        f"--{name.replace('_', '-')}"
        for name in ("log_level", "log_format")
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT
    ]
    if given:
        raise OptionError(
            f"--log-config has the level and the form: leave out {' and '.join(given)}"
        )
    configure_from(config)


def _forget_log() -> None:
    """Take back what an earlier call has given the root logger: options may be read again."""
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if isinstance(handler, logging.StreamHandler) and handler.stream is LOG:
            root.removeHandler(handler)


def _log_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any, **__: Any
) -> None:
    """In place of ``warnings.showwarning``: one line of the log."""
    log = logging.getLogger("py.warnings")
    log.warning("%s: %s (%s, line %d)", category.__name__, message, filename, lineno)


def _tls(
    cert: str | None,
    key: str | None,
    password_file: str | None,
    client_ca: str | None,
    alpn: str | None,
) -> dict[str, TLS]:
    """The option ``tls``, if there is a certificate."""
    if cert is None:
        if key or password_file or client_ca or alpn:
            raise OptionError(
                "--tls-key, --tls-password-file, --tls-client-ca and --tls-alpn go with --tls-cert"
            )
        return {}
    names = [name.strip() for name in (alpn or "").split(",") if name.strip()]
    password = None if password_file is None else lambda: _password_in(password_file)
    return {"tls": TLS(cert, key, password=password, client_ca=client_ca, alpn=names)}


def _password_in(path: str) -> bytes:
    """The first line of the file; read at each load, as the key may have been renewed."""
    with open(path, "rb") as file:
        return file.readline().rstrip(b"\r\n")
