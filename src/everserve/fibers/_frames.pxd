# Small first chunks for the Python frames of greenlets: see `_frames.h`.
cdef extern from "_frames.h":
    const bint FRAMES_KNOWN "EVERSERVE_FRAMES_KNOWN"   # whether this version of CPython has them
    void *chunk_in "everserve_chunk_in"()
    void chunk_out "everserve_chunk_out"(void *chunk)
    bint chunk_is_full "everserve_chunk_is_full"(void *chunk)
    void drop_chunks "everserve_drop_chunks"()
