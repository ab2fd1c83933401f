"""The types of the fixtures of this folder."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeAlias

from tests.clients import Background

Serve: TypeAlias = Callable[..., Background]
Echoes: TypeAlias = Callable[[Any], bool]


class Selects:
    """The waits of all selectors: the timeout of each, in order."""

    def __init__(self) -> None:
        self.timeouts: list[float | None] = []
        self.begun = threading.Event()
