"""The ready-made codecs, of the engine that runs: see ``wire/``."""

from typing import TYPE_CHECKING

from everserve.fibers.engines import engine
from everserve.wire.codec import Codec
from everserve.wire.jsonlines import JSONLines
from everserve.wire.netstrings import Netstrings

if TYPE_CHECKING or engine == "python":
    from everserve.wire.lengths import Lengths
    from everserve.wire.lines import Lines
else:
    from everserve.wire._lengths import Lengths
    from everserve.wire._lines import Lines

__all__ = ["Codec", "JSONLines", "Lengths", "Lines", "Netstrings"]
