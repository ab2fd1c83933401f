# cython: binding=False
"""The compiled `Ready`; `ready.py` is its reference.

`await` takes the line by the slot `tp_iternext`, which sets a StopIteration and returns NULL. A method
`__next__` that raises it would add a traceback, which costs more than all else of a line.
"""
cimport cython
from cpython.object cimport PyObject

cdef extern from *:
    """
    static void everserve_set_next(PyObject *type, PyObject *(*next)(PyObject *)) {
        ((PyTypeObject *)type)->tp_iternext = next;
    }
    """
    void set_next "everserve_set_next"(object type, PyObject *(*next)(PyObject *) noexcept)

cdef extern from "Python.h":
    void PyErr_SetObject(object kind, object value)


@cython.final
@cython.freelist(8)
cdef class Ready:
    """An awaitable that waits for nothing. `NOTHING` gives None."""
    cdef bytes line

    def __init__(self, bytes line):
        self.line = line

    def __await__(self):
        return self

    def __next__(self):
        raise NotImplementedError  # never called: the slot is replaced


cdef PyObject *give(PyObject *me) noexcept:
    cdef bytes line = (<Ready>me).line
    if line is not None:         # NULL alone is the end, with None
        PyErr_SetObject(StopIteration, line)
    return NULL


set_next(Ready, give)
NOTHING = Ready(None)
