# cython: binding=False
"""The compiled pieces of a stream: each message is copied once.

What is not all `bytes` is left to `pieces.py`, the reference. `bytes.split` looks at each byte by
itself, and what `bytes.join` makes has to be searched for endings once more.
"""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from libc.string cimport memchr, memcpy

from everserve.wire import pieces as reference

cdef extern from "Python.h":
    PyObject *borrowed "PyList_GET_ITEM"(list items, Py_ssize_t index)
    char *bytes_of "PyBytes_AS_STRING"(PyObject *data)
    Py_ssize_t length_of "PyBytes_GET_SIZE"(PyObject *data)
    bint is_bytes "PyBytes_CheckExact"(PyObject *data)


cdef extern from "string.h":
    void *memmem(const void *data, size_t size, const void *wanted, size_t length)


def cut_lines(bytes data not None, Py_ssize_t start, bytes ending not None, Py_ssize_t most,
              Py_ssize_t max_length):
    """The whole lines from `data[start]` on, at most so many, and the place after them.

    The place is -1 if the first line is too long.
    """
    cdef Py_ssize_t end = start
    cdef list lines = cut(data, &end, ending, most, max_length)
    return lines, end


cdef list cut(bytes data, Py_ssize_t *place, bytes ending, Py_ssize_t most, Py_ssize_t max_length):
    """As `cut_lines`; `place` is the start, and then the place after the lines."""
    cdef list lines = []
    cdef const char *text = PyBytes_AS_STRING(data)
    cdef const char *wanted = PyBytes_AS_STRING(ending)
    cdef const char *found
    cdef Py_ssize_t start = place[0], left, length, width = PyBytes_GET_SIZE(ending)
    while len(lines) < most:
        left = PyBytes_GET_SIZE(data) - start
        if width == 1:
            found = <const char *>memchr(text + start, wanted[0], left)
        else:
            found = <const char *>memmem(text + start, left, wanted, width)
        length = left - width + 1 if found is NULL else found - text - start
        if length > max_length:        # of a rest too, which may end with a part of its ending
            start = start if lines else -1
            break
        if found is NULL:
            break
        lines.append(PyBytes_FromStringAndSize(text + start, length))
        start += length + width
    place[0] = start
    return lines


# --- frames -------------------------------------------------------------------------------------


cdef enum:
    LONGEST_VARINT = 10

ctypedef struct Header:
    Py_ssize_t body              # where the message begins; 0 if its length is not there yet
    unsigned long long length    # one more than the largest: too long, or no length at all


def cut_frames(bytes data not None, Py_ssize_t start, Py_ssize_t size, bint is_little,
               Py_ssize_t most, unsigned long long max_length):
    """The whole frames from `data[start]` on, at most so many, and the place after them.

    Each comes after its length of `size` bytes; 0: a varint. The place is -1 if the first is too long.
    """
    cdef list messages = []
    cdef Py_ssize_t whole = PyBytes_GET_SIZE(data)
    cdef Header header
    while len(messages) < most:
        header = read_header(data, start, size, is_little, max_length)
        if header.length > max_length:
            return messages, start if messages else -1
        if header.body == 0 or <unsigned long long>(whole - header.body) < header.length:
            break
        messages.append(PyBytes_FromStringAndSize(PyBytes_AS_STRING(data) + header.body,
                                                  <Py_ssize_t>header.length))
        start = header.body + <Py_ssize_t>header.length
    return messages, start


def missing_bytes(bytes data not None, Py_ssize_t start, Py_ssize_t size, bint is_little,
                  unsigned long long max_length):
    """How many bytes more the frame at `start` needs at least."""
    cdef Header header = read_header(data, start, size, is_little, max_length)
    if header.body == 0:
        return 1
    return header.body + <Py_ssize_t>header.length - PyBytes_GET_SIZE(data)


cdef Header read_header(bytes data, Py_ssize_t start, Py_ssize_t size, bint is_little,
                        unsigned long long max_length) noexcept:
    cdef const unsigned char *text = <const unsigned char *>PyBytes_AS_STRING(data) + start
    cdef Py_ssize_t left = PyBytes_GET_SIZE(data) - start, index
    cdef Header header
    header.body = 0
    header.length = 0
    if size == 0:
        return read_varint(text, start, left, max_length)
    if left < size:
        return header
    for index in range(size):
        header.length = header.length << 8 | text[size - 1 - index if is_little else index]
    header.body = start + size
    header.length = min(header.length, max_length + 1)
    return header


cdef Header read_varint(const unsigned char *text, Py_ssize_t start, Py_ssize_t left,
                        unsigned long long max_length) noexcept:
    cdef unsigned long long bits
    cdef Py_ssize_t index
    cdef Header header
    header.body = 0
    header.length = 0
    for index in range(min(<Py_ssize_t>LONGEST_VARINT, left)):
        bits = text[index] & 127
        if bits and (index == LONGEST_VARINT - 1 or bits > max_length >> (7 * index)
                     or header.length + (bits << (7 * index)) > max_length):
            header.length = max_length + 1
            return header
        header.length += bits << (7 * index)
        if text[index] < 128:
            header.body = start + index + 1
            return header
    header.length = max_length + 1 if left >= LONGEST_VARINT else 0
    return header


# --- joined -------------------------------------------------------------------------------------


cdef Py_ssize_t size_of_all(messages) noexcept:
    """The sum of their lengths; -1 unless it is a list of `bytes`."""
    cdef Py_ssize_t total = 0, index
    cdef PyObject *message
    if type(messages) is not list:
        return -1
    for index in range(len(<list>messages)):
        message = borrowed(<list>messages, index)
        if not is_bytes(message):
            return -1
        total += length_of(message)
    return total


cpdef bytes join_lines(messages, bytes ending):
    """Each message and the ending. `ValueError` if a message has the ending inside."""
    cdef Py_ssize_t total = size_of_all(messages), index, size
    cdef PyObject *message
    cdef bytes joined
    cdef char last
    cdef char *target
    if total < 0 or len(ending) != 1:
        return reference.join_lines(messages, ending)
    last = PyBytes_AS_STRING(ending)[0]
    joined = PyBytes_FromStringAndSize(NULL, total + len(<list>messages))
    target = PyBytes_AS_STRING(joined)
    for index in range(len(<list>messages)):
        message = borrowed(<list>messages, index)
        size = length_of(message)
        memcpy(target, bytes_of(message), size)
        if memchr(target, last, size) is not NULL:
            return reference.join_lines(messages, ending)      # raises
        target[size] = last
        target += size + 1
    return joined


cpdef bytes join_frames(messages, Py_ssize_t size, bint is_little):
    """Each message after its length of `size` bytes; 0: a varint. `ValueError` if it cannot say it."""
    cdef Py_ssize_t total = size_of_all(messages), index
    cdef unsigned long long length
    cdef PyObject *message
    cdef bytes joined
    cdef char *target
    if total < 0:
        return reference.join_frames(messages, size, is_little)
    for index in range(len(<list>messages)):
        length = length_of(borrowed(<list>messages, index))
        if 0 < size < 8 and length >> (8 * size):
            return reference.join_frames(messages, size, is_little)      # raises
        total += size if size else varint_size(length)
    joined = PyBytes_FromStringAndSize(NULL, total)
    target = PyBytes_AS_STRING(joined)
    for index in range(len(<list>messages)):
        message = borrowed(<list>messages, index)
        length = length_of(message)
        target = write_fixed(target, length, size, is_little) if size else write_varint(target, length)
        memcpy(target, bytes_of(message), length)
        target += length
    return joined


cdef char *write_fixed(char *target, unsigned long long length, Py_ssize_t size,
                       bint is_little) noexcept:
    cdef Py_ssize_t index
    for index in range(size):
        target[index if is_little else size - 1 - index] = <char>(length & 255)
        length >>= 8
    return target + size


cdef Py_ssize_t varint_size(unsigned long long length) noexcept:
    cdef Py_ssize_t size = 1
    while length > 127:
        length >>= 7
        size += 1
    return size


cdef char *write_varint(char *target, unsigned long long length) noexcept:
    while length > 127:
        target[0] = <char>(length & 127 | 128)
        target += 1
        length >>= 7
    target[0] = <char>length
    return target + 1
