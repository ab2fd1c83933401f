"""Which lock of `threading` a stalled thread waits for, and who holds it.

The stall watch asks. A lock does not know its holder, so this reads the frames: an instruction that
takes a lock loads it by a name, and a frame inside of `with lock:` holds that lock.
"""

import dis
import inspect
import threading
from collections.abc import Iterable, Iterator
from types import CodeType, FrameType
from typing import Any, Final, NamedTuple

__all__ = ["describe_wait"]

_KINDS: Final = (type(threading.Lock()), type(threading.RLock()))
_BASES: Final = ("LOAD_FAST", "LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_GLOBAL", "LOAD_NAME")
_ATTRIBUTES: Final = ("LOAD_ATTR", "LOAD_METHOD")
_MISSING: Final = object()


class _Place(NamedTuple):
    """Where a lock is used: its name there, and the lock."""

    name: str
    lock: Any


def describe_wait(frame: FrameType, others: Iterable[tuple[str, FrameType]]) -> str:
    """A line that names the lock and its holder; "" if the thread of `frame` waits for no lock.

    `others` are the frames of the other threads and fibers, with their names.
    """
    place = _awaited(frame)
    if place is None:
        return ""
    for who, other in others:
        for outer in _outward(other):
            if _holds(outer, place.lock):
                code = outer.f_code
                where = f"{code.co_name} ({code.co_filename}, line {outer.f_lineno})"
                return f"waits for the lock {place.name}, which {who} holds in {where}\n"
    return f"waits for the lock {place.name}: {place.lock!r}\n"


def _awaited(frame: FrameType) -> _Place | None:
    """The lock that the instruction of `frame` takes, of a Condition too."""
    caller: FrameType | None = frame
    while caller is not None and caller.f_code.co_filename == threading.__file__:
        caller = caller.f_back
    return None if caller is None else _taken_at(caller, caller.f_lasti)


def _outward(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _holds(frame: FrameType, lock: Any) -> bool:
    code = frame.f_code
    taken = (*_entries_of_with(code, frame.f_lasti), *_calls_of_acquire(code, frame.f_lasti))
    return any((place := _taken_at(frame, at)) and place.lock is lock for at in taken)


def _entries_of_with(code: CodeType, at: int) -> Iterator[int]:
    """The instructions that entered the `with` blocks around the offset `at`, the innermost first.

    An offset has one handler of exceptions; what is around it is the handler of that handler.
    """
    body = dis.Bytecode(code)
    instructions = {each.offset: each for each in body}
    entries = getattr(body, "exception_entries", ())
    seen: set[int] = set()
    while entry := next((e for e in entries if e.start <= at < e.end), None):
        at = entry.target
        if at in seen:
            return
        seen.add(at)
        handler = [instructions[each].opname for each in (at, at + 2) if each in instructions]
        if handler == ["PUSH_EXC_INFO", "WITH_EXCEPT_START"]:
            begins = min(e.start for e in entries if e.target == at)
            yield max(offset for offset in instructions if offset < begins)


def _calls_of_acquire(code: CodeType, at: int) -> Iterator[int]:
    """The loads of a method `acquire` before `at`, unless one of `release` follows them."""
    found: list[int] = []
    for each in dis.get_instructions(code):
        if each.offset >= at:
            break
        if each.opname in _ATTRIBUTES and each.argval == "acquire":
            found.append(each.offset)
        elif each.opname in _ATTRIBUTES and each.argval == "release":
            found.clear()
    yield from found


def _taken_at(frame: FrameType, at: int) -> _Place | None:
    """The lock whose name is loaded last, up to the instruction at the offset `at`."""
    before = [each for each in dis.get_instructions(frame.f_code) if each.offset <= at]
    names: list[str] = []
    while before:
        each = before.pop()
        if each.opname in _ATTRIBUTES:
            if each.argval not in ("acquire", "__enter__"):
                names.insert(0, each.argval)
        elif each.opname.startswith(_BASES) and isinstance(each.argval, str):
            return _resolved(frame, [each.argval, *names])
    return None


def _resolved(frame: FrameType, names: list[str]) -> _Place | None:
    """Look the names up without running code of the program."""
    scopes = (frame.f_locals, frame.f_globals)
    value = next((scope[names[0]] for scope in scopes if names[0] in scope), _MISSING)
    for name in names[1:]:
        value = inspect.getattr_static(value, name, _MISSING)
    if isinstance(value, threading.Condition):
        value = value._lock  # type: ignore[attr-defined]
    return _Place(".".join(names), value) if isinstance(value, _KINDS) else None
