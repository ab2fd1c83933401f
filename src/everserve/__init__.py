"""Python's ``socketserver``, rebuilt for production and for speed.

``import everserve as socketserver`` is a drop-in; ``everserve.serve(Handler, "tcp://...")`` is the
short way. Each public name is written once, in the ``__all__`` of the package that defines it.

``from everserve import *`` must not replace what a program has from elsewhere: functions such as
``make_server`` (``wsgiref`` has one too) and ``Connection`` (so has ``sqlite3``) are attributes alone.
So are the modules that programs take from ``socketserver``, or patch there.
"""

import sys as sys
import warnings as _warnings
from typing import TYPE_CHECKING as _TYPE_CHECKING

from everserve.cli import interruption as _interruption

if _interruption.is_command(sys.orig_argv, getattr(sys, "argv", [])):
    sys.excepthook = _interruption.end_quietly

import os as os
import selectors as selectors
import socket as socket
import threading as threading
from io import BufferedIOBase as BufferedIOBase
from time import monotonic as time  # noqa: F401

from everserve import admission as _admission
from everserve import combos as _combos
from everserve import handlers as _handlers
from everserve import messages as _messages
from everserve import mixins as _mixins
from everserve import server as _server
from everserve.admission import *
from everserve.combos import *
from everserve.fibers.engines import engine as engine
from everserve.handlers import *
from everserve.lifecycle.connection import Connection as Connection
from everserve.messages import *
from everserve.mixins import *
from everserve.server import *
from everserve.serving import make_group as make_group
from everserve.serving import make_server as make_server
from everserve.serving import serve as serve
from everserve.sockets.tls import TLS
from everserve.streams import Writer as _SocketWriter  # noqa: F401

__all__ = [
    "TLS",
    *_admission.__all__,
    *_combos.__all__,
    *_handlers.__all__,
    *_messages.__all__,
    *_mixins.__all__,
    *_server.__all__,
]

if _TYPE_CHECKING:
    __version__: str
else:

    def __getattr__(name: str) -> str:
        """The ``__version__`` of ``socketserver``, deprecated there since Python 3.15."""
        if name != "__version__":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        if sys.version_info >= (3, 15):
            _warnings.warn(
                "'__version__' is deprecated and slated for removal in Python 3.20; "
                "importlib.metadata.version('everserve') is the version of everserve",
                DeprecationWarning,
                stacklevel=2,
            )
        return "0.4"
