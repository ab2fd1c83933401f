# What the message handlers call in C of a codec.
cdef list decode_many(codec, bytes data, Py_ssize_t *place, Py_ssize_t most)
cdef bytes encode_many(codec, list messages)
