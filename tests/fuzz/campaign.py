"""A campaign: codecs are given bytes that no one would write, for some minutes.

``make fuzz``, or ``python -m tests.fuzz.campaign [--seconds 300] [--seed N]``. Where atheris is
installed it looks for bytes that reach new branches of the codecs; elsewhere the bytes are valid
streams with random changes. Bytes for which ``streams.check`` fails are printed with the command that
repeats it.
"""

from __future__ import annotations

import argparse
import importlib
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["SEEDS", "by_chance", "changed", "main"]

LONGEST = 512
"""Bytes of a stream at most: more than all limits that `streams.check` chooses."""

SEEDS = (
    b"one\ntwo\n\nthree\n",
    b"one\r\ntwo\r\n\r\r\n",
    b"oneaabaaabtwoaab",
    b"\x03one\x00\x02ab",
    b"\0\0\0\x03one\0\0\0\0\0\0\0\x01x",
    b"\x03\0\0\0\0\0\0\0one\0\0\0\0\0\0\0\0",
    b"\x03one\x80\x01" + bytes(128),
    b"3:one,0:,12:hello, world,",
    b'{"a":[1,2.5,null]}\n"\\ud83d\\ude00"\n[]\n',
)
"""A valid stream for each of the kinds of `streams.check`."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.campaign")
    parser.add_argument("--seconds", type=int, default=300, help="how long (default 300)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(31))
    parser.add_argument("--bytes", type=bytes.fromhex, help="check these alone, in hexadecimal")
    given = parser.parse_args()
    if given.bytes is not None:
        imported().check(given.bytes)
        print("all holds for these bytes")
        return 0
    print(f"seed {given.seed}, {given.seconds} s", flush=True)
    try:
        atheris = importlib.import_module("atheris")
    except ImportError:
        print("atheris is not installed: the bytes are changed by chance, blind to what they reach")
        return by_chance(reported(imported().check), given.seconds, given.seed)
    return by_coverage(atheris, given.seconds, given.seed)


def imported() -> Any:
    """The module of ``check``, which imports the codecs: atheris must have begun before."""
    return importlib.import_module("tests.fuzz.streams")


def reported(check: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """``check``, which prints the bytes for which it fails."""

    def tell(data: bytes) -> None:
        try:
            check(data)
        except BaseException:
            print(f'repeat it: make fuzz ARGS="--bytes {data.hex()}"', flush=True)
            raise

    return tell


def by_coverage(atheris: Any, seconds: int, seed: int) -> int:
    """Fuzz until something fails, or the time is over; atheris ends the process."""
    with atheris.instrument_imports(include=["everserve.wire"]):
        check = reported(imported().check)
    # A seed of 0 would be a new one each time; -print_final_stats says how many runs there were.
    options = [f"-max_total_time={seconds}", f"-seed={seed or 1}", f"-max_len={LONGEST}"]
    Path(".cache").mkdir(exist_ok=True)
    options += ["-artifact_prefix=.cache/", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *options], check)
    atheris.Fuzz()
    return 0


def by_chance(check: Callable[[bytes], None], seconds: float, seed: int) -> int:
    """Check changed streams until the time is over."""
    chance = random.Random(seed)
    end = time.monotonic() + seconds
    runs = 0
    while time.monotonic() < end:
        check(changed(chance))
        runs += 1
    print(f"{runs:,} streams: all holds")
    return 0


def changed(chance: random.Random) -> bytes:
    """One of the valid streams, repeated and changed, after the bytes by which `check` chooses."""
    kind = chance.randrange(len(SEEDS))
    stream = bytearray(SEEDS[kind] * chance.randint(1, 4))
    for _ in range(chance.randint(0, 4)):
        place = chance.randrange(len(stream))
        length = chance.randint(0, 3)
        stream[place : place + length] = chance.randbytes(chance.randint(0, 3)) or SEEDS[kind][:2]
    return bytes([kind]) + chance.randbytes(7) + bytes(stream[:LONGEST])


if __name__ == "__main__":
    sys.exit(main())
