"""Makes events of one kind, a tenth of a microsecond each; `making.py` is its reference.

The constructor of a frozen dataclass calls `object.__setattr__` for each field.
"""
from dataclasses import fields

from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from everserve.fibers._slots cimport slot_offset

cdef extern from *:
    """
    #define everserve_new(kind, nothing) \\
        (((PyTypeObject *)(kind))->tp_new((PyTypeObject *)(kind), (nothing), NULL))
    static inline void everserve_fill(PyObject *object, Py_ssize_t offset, PyObject *value) {
        *(PyObject **)((char *)object + offset) = value;
    }
    """
    object new_object "everserve_new"(object kind, object nothing)
    void fill "everserve_fill"(object owner, Py_ssize_t offset, PyObject *value)

cdef tuple NOTHING = ()
cdef object UNSET = object()


cdef class Maker:
    """Makes events of a kind that has two or three fields of its own."""

    def __init__(self, kind):
        cdef int i = 0
        self.kind = kind
        for field in fields(kind):
            self.offsets[i] = slot_offset(getattr(kind, field.name))
            if self.offsets[i] < 0:
                raise TypeError(f"{kind.__name__}.{field.name} is no slot")
            i += 1
        self.size = i

    cpdef object make(self, server, first, second, third=UNSET):
        """The event, of the server with that name."""
        event = new_object(self.kind, NOTHING)
        self.put(event, 0, server)
        self.put(event, 1, None)     # the worker
        self.put(event, 2, first)
        self.put(event, 3, second)
        if third is not UNSET:
            self.put(event, 4, third)
        return event

    cdef void put(self, event, int field, value) noexcept:
        Py_INCREF(value)
        fill(event, self.offsets[field], <PyObject *>value)
