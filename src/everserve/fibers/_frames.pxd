# What CPython keeps for a piece of running Python, and what parking it costs: frames and their memory.
# All of it is C, to be inlined: what stands on a parked fiber's stack is saved.

cdef extern from *:
    """
    /* The interpreter gives every greenlet a first chunk of 16 KiB for its Python frames, mapped by
       itself, of which a parked handler uses some hundred bytes and keeps a page of 4 KiB. A first
       chunk of our own keeps 1.5 KiB: a quarter of the memory of an idle connection. Frames that
       need more get the interpreter's chunk on top of it, as ever. */
    #define EVERSERVE_CHUNK 1536
    static void *everserve_chunk_in(void) {
        PyThreadState *state = PyThreadState_Get();
        _PyStackChunk *chunk;
        char *block;
        if (state->datastack_chunk != NULL) return NULL;
        block = (char *)PyMem_RawMalloc(EVERSERVE_CHUNK + 32);
        if (block == NULL) return NULL;
        /* Never at the start of a page: should a greenlet be destroyed without being unwound, its
           chunks go to munmap(2), which must refuse this one. */
        chunk = (_PyStackChunk *)(block + (((uintptr_t)block & 4095) == 0 ? 16 : 0));
        *(char **)((char *)chunk + EVERSERVE_CHUNK) = block;
        chunk->previous = NULL;
        chunk->size = EVERSERVE_CHUNK;
        chunk->top = 0;
        state->datastack_chunk = chunk;
        state->datastack_top = &chunk->data[1];    /* as the interpreter does with a root chunk */
        state->datastack_limit = (PyObject **)((char *)chunk + EVERSERVE_CHUNK);
        return chunk;
    }
    static void everserve_chunk_out(void *chunk) {
        PyThreadState *state = PyThreadState_Get();
        if (chunk == NULL || state->datastack_chunk != chunk) return;   /* still in use: leave it */
        state->datastack_chunk = NULL;
        state->datastack_top = state->datastack_limit = NULL;
        PyMem_RawFree(*(char **)((char *)chunk + EVERSERVE_CHUNK));
    }
    static inline int everserve_chunk_is_full(void *chunk) {
        return chunk != NULL && PyThreadState_Get()->datastack_chunk != chunk;
    }

    /* Where calls go in and out of a chunk, the interpreter maps and unmaps its next one each time: two
       system calls and four page faults. A few that are kept (the GIL is held) make that cheap. */
    #define EVERSERVE_NEXT_CHUNK 16384
    #define EVERSERVE_KEPT_CHUNKS 16
    static PyObjectArenaAllocator everserve_arenas;
    static void *everserve_kept[EVERSERVE_KEPT_CHUNKS];
    static int everserve_kept_count = 0;
    static void *everserve_map(void *context, size_t size) {
        if (size == EVERSERVE_NEXT_CHUNK && everserve_kept_count)
            return everserve_kept[--everserve_kept_count];
        return everserve_arenas.alloc(context, size);
    }
    static void everserve_unmap(void *context, void *block, size_t size) {
        if (size == EVERSERVE_NEXT_CHUNK && everserve_kept_count < EVERSERVE_KEPT_CHUNKS)
            everserve_kept[everserve_kept_count++] = block;
        else
            everserve_arenas.free(context, block, size);
    }
    static void everserve_keep_chunks(void) {
    #ifndef Py_GIL_DISABLED
        PyObjectArenaAllocator ours;
        PyObject_GetArenaAllocator(&everserve_arenas);
        ours.ctx = everserve_arenas.ctx;
        ours.alloc = everserve_map;
        ours.free = everserve_unmap;
        PyObject_SetArenaAllocator(&ours);
    #endif
    }
    """
    void keep_chunks "everserve_keep_chunks"()
    void *chunk_in "everserve_chunk_in"()
    void chunk_out "everserve_chunk_out"(void *chunk)
    bint chunk_is_full "everserve_chunk_is_full"(void *chunk)
