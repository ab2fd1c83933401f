"""A function of a module without everserve, which an interpreter of its own can load."""

from __future__ import annotations


def handle(line: bytes) -> bytes:
    """The line in capitals, or an error."""
    if line == b"error":
        raise ValueError("no such line")
    return line.upper()
