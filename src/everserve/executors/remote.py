"""What runs in another process: it calls ``handle_message``, and packs what comes of it.

Whatever that is, it is unpacked in the server by ``unpack``, so that a reply or an exception that
cannot be pickled, or not be read back, is an error of its message alone.
"""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable
from typing import Any

from everserve.errors import RemoteError

__all__ = ["run_message", "run_packed", "unpack"]

_REPLY, _SEVERAL, _ERROR = range(3)


def run_message(function: Callable[[Any], Any], message: Any) -> bytes:
    """Call ``function(message)``. Returns its reply, or what it raised, for ``unpack``."""
    try:
        reply = function(message)
        if hasattr(reply, "__next__"):
            return pickle.dumps((_SEVERAL, list(reply)))
        return pickle.dumps((_REPLY, reply))
    except BaseException as error:
        return pickle.dumps((_ERROR, _portable(error)))


def run_packed(function: bytes, message: Any) -> bytes:
    """As ``run_message``, of a pickled function: who passes it on need not be able to load it."""
    try:
        loaded = pickle.loads(function)
    except Exception as error:
        return pickle.dumps((_ERROR, _portable(error)))
    return run_message(loaded, message)


def unpack(packed: bytes) -> Any:
    """The reply; an iterator for several. Raises what ``handle_message`` raised."""
    kind, value = pickle.loads(packed)
    if kind == _ERROR:
        raise value
    return iter(value) if kind == _SEVERAL else value


def _portable(error: BaseException) -> BaseException:
    """The exception with its traceback as a note; a ``RemoteError`` if it cannot be pickled."""
    text = "".join(traceback.format_exception(error)).rstrip()
    try:
        again: BaseException = pickle.loads(pickle.dumps(error))
        if type(again) is not type(error):
            raise TypeError
    except Exception:
        return RemoteError(text)
    again.add_note(f"In the worker:\n{text}")
    return again
