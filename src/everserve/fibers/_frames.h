/* Where CPython keeps the Python frames of a fiber.

   The interpreter gives every greenlet a first chunk of 16 KiB for its frames, in pages of its own. A
   parked handler uses some hundred bytes of it, and so keeps a page of 4 KiB. Here that first chunk has
   1.5 KiB, from malloc: 6.8 instead of 9.3 KB for an idle connection (Python 3.13, `make bench`, memory).
   Frames that do not fit get the interpreter's chunk on top, as they always do.

   This writes private fields of the thread state. So it is compiled only for the versions of CPython
   on which the tests have run, with a GIL; for any other, everything here does nothing, and fibers have
   the interpreter's own chunks. To add a version, read `_PyStackChunk`, `push_chunk` and
   `_PyThreadState_PopFrame` in its Python/pystate.c, and run the tests on it. */

#if PY_VERSION_HEX >= 0x030B0000 && PY_VERSION_HEX < 0x03100000 && !defined(Py_GIL_DISABLED)

#define EVERSERVE_FRAMES_KNOWN 1
#define EVERSERVE_CHUNK 1536           /* bytes of a first chunk; a greenlet has one */
#define EVERSERVE_NEXT_CHUNK 16384     /* bytes of the interpreter's: DATA_STACK_CHUNK_SIZE */
#define EVERSERVE_KEPT_CHUNKS 16

/* Where calls go in and out of a first chunk, the interpreter maps and unmaps its next one each time:
   7 us, which is more than a small echo costs. So a thread that runs fibers keeps a few of them. The only
   way to them is the allocator of arenas, which is one for the whole process: other threads, and other
   sizes, get what they would get without. It is replaced when the first fiber begins, not before. */
static PyObjectArenaAllocator everserve_arenas;
static int everserve_arenas_replaced = 0;
static __thread int everserve_keeps_chunks = 0;
static __thread int everserve_kept_count = 0;
static __thread void *everserve_kept[EVERSERVE_KEPT_CHUNKS];

static void *everserve_map(void *context, size_t size) {
    if (size == EVERSERVE_NEXT_CHUNK && everserve_kept_count)
        return everserve_kept[--everserve_kept_count];
    return everserve_arenas.alloc(context, size);
}

static void everserve_unmap(void *context, void *block, size_t size) {
    if (size == EVERSERVE_NEXT_CHUNK && everserve_keeps_chunks
        && everserve_kept_count < EVERSERVE_KEPT_CHUNKS)
        everserve_kept[everserve_kept_count++] = block;
    else
        everserve_arenas.free(context, block, size);
}

static void everserve_keep_chunks(void) {
    PyObjectArenaAllocator ours;
    everserve_keeps_chunks = 1;
    if (everserve_arenas_replaced) return;
    PyObject_GetArenaAllocator(&everserve_arenas);
    ours.ctx = everserve_arenas.ctx;
    ours.alloc = everserve_map;
    ours.free = everserve_unmap;
    PyObject_SetArenaAllocator(&ours);
    everserve_arenas_replaced = 1;
}

/* Free what this thread keeps, and keep no more of them. */
static void everserve_drop_chunks(void) {
    everserve_keeps_chunks = 0;
    while (everserve_kept_count)
        everserve_arenas.free(everserve_arenas.ctx, everserve_kept[--everserve_kept_count],
                              EVERSERVE_NEXT_CHUNK);
}

/* Give the greenlet that has just begun its first chunk; NULL if it has one, or without memory. */
static void *everserve_chunk_in(void) {
    PyThreadState *state = PyThreadState_Get();
    _PyStackChunk *chunk;
    char *block;
    if (state->datastack_chunk != NULL) return NULL;
    block = (char *)PyMem_RawMalloc(EVERSERVE_CHUNK + 32);
    if (block == NULL) return NULL;
    /* Never at the start of a page: if a greenlet is destroyed without being unwound, the interpreter
       passes its chunks to munmap(2), which must refuse this one. */
    chunk = (_PyStackChunk *)(block + (((uintptr_t)block & 4095) == 0 ? 16 : 0));
    *(char **)((char *)chunk + EVERSERVE_CHUNK) = block;
    chunk->previous = NULL;
    chunk->size = EVERSERVE_CHUNK;
    chunk->top = 0;
    state->datastack_chunk = chunk;
    state->datastack_top = &chunk->data[1];    /* as the interpreter does with a root chunk */
    state->datastack_limit = (PyObject **)((char *)chunk + EVERSERVE_CHUNK);
    everserve_keep_chunks();
    return chunk;
}

/* Take it back at the end of the greenlet. */
static void everserve_chunk_out(void *chunk) {
    PyThreadState *state = PyThreadState_Get();
    if (chunk == NULL || state->datastack_chunk != chunk) return;   /* still in use: leave it */
    state->datastack_chunk = NULL;
    state->datastack_top = state->datastack_limit = NULL;
    PyMem_RawFree(*(char **)((char *)chunk + EVERSERVE_CHUNK));
}

/* Whether the running greenlet has more frames than its first chunk holds. */
static inline int everserve_chunk_is_full(void *chunk) {
    return chunk != NULL && PyThreadState_Get()->datastack_chunk != chunk;
}

#else

#define EVERSERVE_FRAMES_KNOWN 0
static void *everserve_chunk_in(void) { return NULL; }
static void everserve_chunk_out(void *chunk) { (void)chunk; }
static void everserve_drop_chunks(void) {}
static inline int everserve_chunk_is_full(void *chunk) { (void)chunk; return 0; }

#endif
