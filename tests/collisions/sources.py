"""The private names in everserve's source, which a program may use as well."""

from __future__ import annotations

import ast
import re
import socketserver
from collections.abc import Iterator
from pathlib import Path

import everserve

OWN = "_everserve"
"""The one private name that everserve has on the objects of a program."""

STANDARD = {
    "_BaseServer__is_shut_down",
    "_BaseServer__shutdown_request",
    "_handle_request_noblock",
    "_threads",
} | {
    name
    for owner in vars(socketserver).values()
    if isinstance(owner, type)
    for name in dir(owner)
    if name.startswith("_")
}
"""The names of the standard library's servers and handlers."""

_PRIVATE = re.compile(r"_(?!_)\w+|__\w*[^_\W]_?")


def private_names() -> list[str]:
    """Every private name of an attribute, method or class attribute; not those of modules."""
    package = Path(everserve.__file__).parent
    names: set[str] = set()
    for path in package.rglob("*.py"):
        names.update(_of_python(ast.parse(path.read_text("utf-8"))))
    for path in package.rglob("*.pyx"):
        names.update(re.findall(r"(?<!\w)_(?!_)\w+", path.read_text("utf-8")))
    return sorted(names - STANDARD - {OWN})


def _of_python(node: ast.AST, owner: str = "") -> Iterator[str]:
    """The names below ``node``, as Python spells them inside the class ``owner``."""
    if isinstance(node, ast.ClassDef):
        owner = node.name
    for name in _of_node(node, owner):
        if _PRIVATE.fullmatch(name):
            yield f"_{owner.lstrip('_')}{name}" if name.startswith("__") else name
    for child in ast.iter_child_nodes(node):
        yield from _of_python(child, owner)


def _of_node(node: ast.AST, owner: str) -> Iterator[str]:
    if isinstance(node, ast.Attribute):
        yield node.attr
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value  # of getattr, of __slots__
    elif owner and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        yield node.name
    elif owner and isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
