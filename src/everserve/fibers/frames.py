"""What EVERSERVE_SMALL_FRAMES says: whether fibers may keep their Python frames in small chunks.

The compiled scheduler asks, once; the chunks are in `_frames.h`.
"""

import os

from everserve.errors import OptionError

__all__ = ["allows_small_frames"]

_CHOICES = ("auto", "no")


def allows_small_frames() -> bool:
    """False for "no", True for "auto" (the default); raises `OptionError` for anything else."""
    choice = os.environ.get("EVERSERVE_SMALL_FRAMES", "").strip().lower() or "auto"
    if choice not in _CHOICES:
        raise OptionError(f"EVERSERVE_SMALL_FRAMES={choice!r}: choose one of {', '.join(_CHOICES)}")
    return choice == "auto"
