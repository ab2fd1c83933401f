# What the other compiled modules of the engine see of the loop.

cdef extern from * nogil:
    """
    enum { TASK_IDLE, TASK_PARKED, TASK_READY, TASK_RUNNING, TASK_DONE };
    """
    enum:
        TASK_IDLE
        TASK_PARKED
        TASK_READY
        TASK_RUNNING
        TASK_DONE

cdef enum:
    READING = 1
    WRITING = 2


cdef class Task:
    cdef Task following          # the next one in the ready queue
    cdef int state
    cdef Py_ssize_t place        # index in the heap of timers, -1 when it is not there
    cdef double due              # when its entry in the heap fires

    cdef int fire(self, Loop loop, double now) except -1


cdef class Watch:
    cdef Loop loop               # None until a wait registers the descriptor
    cdef object callback         # set for a level-triggered reader of the hub
    cdef Task reader
    cdef Task writer
    cdef list others             # further tasks that wait for the same descriptor
    cdef object parked           # a function to be run by a fiber when it is readable
    cdef list elsewhere          # watches of the same descriptor in the loops of other hubs
    cdef double timeout          # seconds for each call; negative: for ever
    cdef int fd
    cdef unsigned int generation
    cdef bint readable           # a read may find something
    cdef bint writable           # a write may find room
    cdef bint hung_up            # the peer has closed, or an error is pending: always ask the kernel
    cdef bint infers             # a short read means that nothing is left
    cdef bint is_stream          # a read may take less than was sent; else it would lose the rest
    cdef bint duplicated         # a duplicate may keep it in epoll after it is closed
    cdef int refused             # READING, WRITING: the kernel said EAGAIN, and was not asked again
    cdef Py_ssize_t expected     # bytes that the last read found
    cdef object buffered         # the writer that has buffered bytes for this descriptor

    cdef bint is_awaited(self)
    cdef int wake(self, unsigned int events) except -1
    cdef int wake_all(self) except -1
    cdef Watch watch_in(self, Loop loop)
    cdef int drop(self, Watch second) except -1
    cdef int release(self) except -1


cdef class Loop:
    cdef int epoll_fd
    cdef int wakeup_fd
    cdef bint notifying          # a wake-up is on its way
    cdef bint notified           # one has come; the hub resets it
    cdef unsigned int generations
    cdef void **watches          # indexed by descriptor; each entry owns a reference
    cdef Py_ssize_t capacity
    cdef Task head
    cdef Task tail
    cdef readonly Py_ssize_t waiting
    cdef void **heap
    cdef Py_ssize_t timers
    cdef Py_ssize_t heap_capacity
    cdef list fired              # callbacks of the readers that are readable now
    cdef object awakened         # what was parked, for fibers to run: a deque
    cdef bint idle               # inside epoll_wait
    cdef object on_active        # called once when a wait ends; set by the stall watch
    cdef list postponed          # readers that could not be registered yet

    cdef int push(self, Task task) except -1
    cdef Task pop(self)
    cdef int awaken(self, Watch watch) except -1
    cdef int register(self, Watch watch) except -1
    cdef int ask_again(self, Watch watch, bint writing) except -1
    cdef int forget(self, Watch watch) except -1
    cdef int arm(self, Task task, double due) except -1
    cdef int disarm(self, Task task) except -1
    cdef int expire(self) except -1
    cdef double next_due(self)
    cdef double remaining(self, double limit)
    cdef int wait(self, double limit) except -1
    cdef int notify(self) noexcept
    cdef void shut(self) noexcept
    cdef int make_room(self, int fd) except -1
    cdef void put(self, Py_ssize_t index, void *entry) noexcept
    cdef void sift_up(self, Py_ssize_t index) noexcept
    cdef void sift_down(self, Py_ssize_t index) noexcept
    cdef int try_to_register(self, Watch watch) except -1
    cdef int register_postponed(self) except -1
    cdef int pause(self, int code, double limit) except -1
    cdef int report_active(self) except -1
    cdef int dispatch(self, void *events, int count) except -1
    cdef void drain(self) noexcept


cdef double monotonic() noexcept nogil
