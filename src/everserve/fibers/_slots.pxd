# Access from C to the `__slots__` of a Python class: each is a pointer at an offset in the object.
from cpython.object cimport PyObject

cdef extern from *:
    """
    #include <stddef.h>
    #include <structmember.h>      /* PyMemberDef, until Python 3.12 */

    static Py_ssize_t everserve_slot_offset(PyObject *descriptor) {
        if (!Py_IS_TYPE(descriptor, &PyMemberDescr_Type)) return -1;
        return ((PyMemberDescrObject *)descriptor)->d_member->offset;
    }
    static inline PyObject *everserve_slot(PyObject *object, Py_ssize_t offset) {
        return *(PyObject **)((char *)object + offset);
    }
    """
    Py_ssize_t slot_offset "everserve_slot_offset"(object descriptor)
    PyObject *slot "everserve_slot"(object owner, Py_ssize_t offset)
