# cython: binding=False
"""The ready-made codecs, called in C; all others as `codec.py`, the reference, calls them."""
from everserve.wire._lengths cimport Lengths
from everserve.wire._lines cimport Lines
from everserve.wire._pieces cimport cut, join_lines

from everserve.wire import codec as reference


cdef list decode_many(codec, bytes data, Py_ssize_t *place, Py_ssize_t most):
    """The messages from `data[place]` on, at most so many; then `place` is the one after them."""
    cdef Lines lines
    cdef tuple found
    if type(codec) is Lines:
        lines = <Lines>codec
        messages = cut(data, place, lines.ending, most, lines.max_length)
        if place[0] < 0:
            raise lines._too_long()
        return <list>messages
    if type(codec) is Lengths:
        found = (<Lengths>codec).decode_many(data, place[0], most)
    else:
        found = reference.decode_many(codec, data, place[0], most)
    place[0] = found[1]
    messages = found[0]
    return messages if type(messages) is list else list(messages)


cdef bytes encode_many(codec, list messages):
    """The bytes of all messages, in order."""
    if type(codec) is Lines:
        return join_lines(messages, (<Lines>codec).ending)
    if type(codec) is Lengths:
        return (<Lengths>codec).encode_many(messages)
    return reference.encode_many(codec, messages)
