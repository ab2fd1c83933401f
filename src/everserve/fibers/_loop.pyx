# cython: binding=False
"""The compiled loop: epoll, a heap of timers and a queue of what may run.

It stands below the hub, which runs what the loop finds ready; `loop.py` is its reference.
"""
import os
from collections import deque

from cpython.ref cimport Py_INCREF, Py_DECREF, Py_XDECREF, PyObject
from cpython.exc cimport PyErr_CheckSignals, PyErr_SetFromErrno
from libc.errno cimport errno, EINTR, EEXIST, ENOENT
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset
from posix.unistd cimport close, read, write

cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        uint64_t u64
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int flags)
    int epoll_ctl(int epfd, int op, int fd, epoll_event *event)
    int epoll_wait(int epfd, epoll_event *events, int maxevents, int timeout)
    enum:
        EPOLL_CLOEXEC
        EPOLL_CTL_ADD
        EPOLL_CTL_DEL
        EPOLL_CTL_MOD
        EPOLLIN
        EPOLLPRI
        EPOLLOUT
        EPOLLERR
        EPOLLHUP
        EPOLLRDHUP
    uint32_t EPOLLET

cdef extern from "<sys/eventfd.h>" nogil:
    int eventfd(unsigned int initial, int flags)
    enum:
        EFD_CLOEXEC
        EFD_NONBLOCK

cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events
        short revents
    int poll(pollfd *fds, unsigned long count, int timeout)
    enum:
        POLLIN
        POLLOUT

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(int clock, timespec *ts)
    int CLOCK_MONOTONIC

from everserve.fibers.exhaustion import EXHAUSTED, PAUSE, log_exhaustion

cdef enum:
    BATCH = 256                  # events a system call
    LONGEST_WAIT = 86_400_000    # milliseconds; epoll_wait takes an int

cdef double NEVER = float("inf")


cdef double monotonic() noexcept nogil:
    cdef timespec ts
    clock_gettime(CLOCK_MONOTONIC, &ts)
    return ts.tv_sec + ts.tv_nsec * 1e-9


cdef class Task:
    """Something that can be in the ready queue and in the heap of timers."""

    def __cinit__(self, *_args, **_options):
        self.place = -1

    cdef int fire(self, Loop loop, double now) except -1:
        """Called when its time has come; its entry has left the heap."""
        return 0

    def wake(self):
        """Make it ready to run if it is parked. For any thread."""
        raise NotImplementedError


cdef class Watch:
    """What the engine knows of one descriptor.

    `readable` and `writable` are guesses: a call that would block makes them false, an event of the
    loop makes them true again.
    """

    def __init__(self, int fd, bint infers=False):
        self.fd = fd
        self.infers = infers
        self.is_stream = True
        self.readable = self.writable = True
        self.timeout = -1.0

    @property
    def registered(self):
        return self.loop is not None

    cdef bint is_awaited(self):
        """Whether a task waits for the descriptor in the loop of this watch."""
        return self.reader is not None or self.writer is not None or bool(self.others)

    cdef int wake(self, unsigned int events) except -1:
        """Make ready the tasks that wait for one of `events`."""
        cdef Loop loop = self.loop
        cdef Task task
        if events & EPOLLPRI:
            self.infers = False   # a read stops short at the urgent mark, with more behind it
        if events & (EPOLLIN | EPOLLPRI | EPOLLRDHUP | EPOLLHUP | EPOLLERR):
            self.readable = True
            if events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR):
                self.hung_up = True
            if self.reader is not None:
                task, self.reader = self.reader, None
                loop.push(task)
            if self.parked is not None:
                loop.awaken(self)
        if events & (EPOLLOUT | EPOLLHUP | EPOLLERR):
            self.writable = True
            if self.writer is not None:
                task, self.writer = self.writer, None
                loop.push(task)
        if self.others is not None:
            waiting, self.others = self.others, None
            for task in waiting:
                loop.push(task)
        return 0

    cdef int wake_all(self) except -1:
        """Wake every task that waits for the descriptor. From any thread."""
        tasks = [self.reader, self.writer, *(self.others or ())]
        self.reader = self.writer = self.others = None
        for task in tasks:
            if task is not None:
                task.wake()
        return 0

    cdef Watch watch_in(self, Loop loop):
        """A watch of the same descriptor in the loop of another hub, which `drop` removes."""
        cdef Watch second
        if self.elsewhere is None:
            self.elsewhere = []
        for second in self.elsewhere:
            if second.loop is loop:
                return second
        second = Watch(self.fd)
        second.duplicated = True         # the descriptor stays open when it is forgotten
        self.elsewhere.append(second)
        return second

    cdef int drop(self, Watch second) except -1:
        """Release a watch of `watch_in` for which no task waits any more."""
        if self.elsewhere is not None and second in self.elsewhere:
            self.elsewhere.remove(second)
            second.release()
        return 0

    cdef int release(self) except -1:
        """The descriptor is about to be closed or detached: wake the tasks that wait for it.

        From any thread: the tasks may belong to another one, and to several hubs.
        """
        cdef Watch second
        if self.loop is not None:
            if self.parked is not None:
                self.loop.awaken(self)
                self.loop.notify()
            self.loop.forget(self)
        self.fd = -1
        self.readable = self.writable = True
        if self.is_awaited():
            self.wake_all()
        if self.elsewhere is not None:
            elsewhere, self.elsewhere = self.elsewhere, None
            for second in elsewhere:
                second.release()
        return 0


cdef class Loop:
    """Waits for descriptors, times and other threads; queues what may run.

    Owns its epoll and event descriptors until `close()`. One thread waits; `wake()` is for any
    thread and for signal handlers.
    """

    def __cinit__(self):
        self.epoll_fd = self.wakeup_fd = -1

    def __init__(self):
        cdef epoll_event event
        self.fired = []
        self.awakened = deque()
        self.epoll_fd = epoll_create1(EPOLL_CLOEXEC)
        if self.epoll_fd < 0:
            PyErr_SetFromErrno(OSError)
        self.wakeup_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
        if self.wakeup_fd < 0:
            PyErr_SetFromErrno(OSError)
        event.events = EPOLLIN
        event.data.u64 = <uint64_t>self.wakeup_fd
        if epoll_ctl(self.epoll_fd, EPOLL_CTL_ADD, self.wakeup_fd, &event) < 0:
            PyErr_SetFromErrno(OSError)

    def __dealloc__(self):
        cdef Py_ssize_t i
        self.shut()
        for i in range(self.capacity):
            Py_XDECREF(<PyObject *>self.watches[i])
        for i in range(self.timers):
            Py_XDECREF(<PyObject *>self.heap[i])
        free(self.watches)
        free(self.heap)

    cdef void shut(self) noexcept:
        if self.epoll_fd >= 0:
            close(self.epoll_fd)
        if self.wakeup_fd >= 0:
            close(self.wakeup_fd)
        self.epoll_fd = self.wakeup_fd = -1

    def close(self):
        """Close the descriptors of the loop; those that it watches stay open."""
        cdef Py_ssize_t i
        cdef Watch watch
        self.shut()
        for i in range(self.capacity):
            if self.watches[i] is not NULL:
                watch = <Watch>self.watches[i]
                self.watches[i] = NULL
                watch.loop = None
                Py_DECREF(watch)
        self.fired.clear()

    @property
    def closed(self):
        return self.epoll_fd < 0

    # --- the ready queue -------------------------------------------------------------------

    cdef int push(self, Task task) except -1:
        """Queue a parked task; any other is queued already, or runs, or has ended."""
        if task.state != TASK_PARKED:
            return 0
        task.state = TASK_READY
        if self.tail is None:
            self.head = task
        else:
            self.tail.following = task
        self.tail = task
        self.waiting += 1
        return 0

    cdef Task pop(self):
        cdef Task task = self.head
        self.head = task.following
        if self.head is None:
            self.tail = None
        task.following = None
        self.waiting -= 1
        return task

    cdef int awaken(self, Watch watch) except -1:
        """Queue what is parked at `watch`. From any thread, which then wakes the loop."""
        function, watch.parked = watch.parked, None
        self.awakened.append(function)
        return 0

    # --- descriptors -----------------------------------------------------------------------

    cdef int register(self, Watch watch) except -1:
        """Have the kernel watch a descriptor: once, for its whole life."""
        cdef epoll_event event
        cdef Watch replaced
        cdef int fd = watch.fd
        if self.epoll_fd < 0:
            raise RuntimeError("the loop is closed")
        self.make_room(fd)
        self.generations += 1
        watch.generation = self.generations
        event.events = (EPOLLIN if watch.callback is not None
                        else EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLRDHUP | EPOLLET)
        event.data.u64 = (<uint64_t>watch.generation << 32) | <uint64_t>fd
        if epoll_ctl(self.epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0:
            if errno != EEXIST or epoll_ctl(self.epoll_fd, EPOLL_CTL_MOD, fd, &event) < 0:
                PyErr_SetFromErrno(OSError)
        watch.refused = 0                # a new registration reports the present state
        watch.loop = self
        if self.watches[fd] == <void *>watch:
            return 0
        if self.watches[fd] is not NULL:
            replaced = <Watch>self.watches[fd]
            if replaced.parked is not None:
                self.awaken(replaced)
            if replaced.is_awaited():
                replaced.wake_all()
            replaced.loop = None
            Py_DECREF(replaced)
        Py_INCREF(watch)
        self.watches[fd] = <void *>watch
        return 0

    cdef int ask_again(self, Watch watch, bint writing) except -1:
        """Have the kernel report again what it has refused though it is there.

        A call may say EAGAIN where the poller says ready, for want of memory say. No edge follows
        then, as nothing changes, and a task that waited for one would sleep for ever.
        """
        cdef pollfd asked
        cdef int direction = WRITING if writing else READING
        if not watch.refused & direction:
            return 0
        watch.refused &= ~direction
        asked.fd = watch.fd
        asked.events = POLLOUT if writing else POLLIN
        asked.revents = 0
        if poll(&asked, 1, 0) > 0 and asked.revents & asked.events:
            self.register(watch)
        return 0

    cdef int make_room(self, int fd) except -1:
        cdef Py_ssize_t wanted
        cdef void **grown
        if fd < self.capacity:
            return 0
        wanted = max(256, 2 * self.capacity, fd + 1)
        grown = <void **>realloc(self.watches, wanted * sizeof(void *))
        if grown is NULL:
            raise MemoryError
        memset(grown + self.capacity, 0, (wanted - self.capacity) * sizeof(void *))
        self.watches = grown
        self.capacity = wanted
        return 0

    cdef int forget(self, Watch watch) except -1:
        """Forget `watch` before its descriptor is closed, which removes it from epoll by itself.

        That saves a system call for each connection, but does not happen where a duplicate keeps
        the open file alive.
        """
        cdef epoll_event event
        cdef int fd = watch.fd
        if watch.loop is not self:
            return 0
        if watch.duplicated and self.epoll_fd >= 0:
            epoll_ctl(self.epoll_fd, EPOLL_CTL_DEL, fd, &event)
        watch.loop = None
        if fd < self.capacity and self.watches[fd] == <void *>watch:
            self.watches[fd] = NULL
            Py_DECREF(watch)
        return 0

    def add_reader(self, int fd, callback):
        """Have `callback()` called by the hub in each turn in which `fd` is readable."""
        cdef Watch watch = Watch(fd)
        watch.callback = callback
        self.try_to_register(watch)

    cdef int try_to_register(self, Watch watch) except -1:
        """Register a reader now, or after a pause where the system has run out of something."""
        try:
            self.register(watch)
        except OSError as error:
            if error.errno not in EXHAUSTED:
                raise
            log_exhaustion(error)
            if self.postponed is None:
                self.postponed = []
            self.postponed.append(watch)
        return 0

    cdef int register_postponed(self) except -1:
        cdef Watch watch
        postponed, self.postponed = self.postponed, None
        for watch in postponed:
            self.try_to_register(watch)
        return 0

    def remove_reader(self, int fd):
        """Undo `add_reader`; True if there was one."""
        cdef Watch watch
        if self.postponed is not None:
            for watch in self.postponed:
                if watch.fd == fd:
                    self.postponed.remove(watch)
                    return True
        if fd < 0 or fd >= self.capacity or self.watches[fd] is NULL:
            return False
        watch = <Watch>self.watches[fd]
        if watch.callback is None:
            return False
        watch.duplicated = True
        watch.callback = None
        self.forget(watch)
        return True

    # --- timers: a binary heap whose entries know their place, so that they can be removed ---

    cdef void put(self, Py_ssize_t index, void *entry) noexcept:
        self.heap[index] = entry
        (<Task>entry).place = index

    cdef void sift_up(self, Py_ssize_t index) noexcept:
        cdef void *entry = self.heap[index]
        cdef double due = (<Task>entry).due
        cdef Py_ssize_t parent
        while index > 0:
            parent = (index - 1) >> 1
            if (<Task>self.heap[parent]).due <= due:
                break
            self.put(index, self.heap[parent])
            index = parent
        self.put(index, entry)

    cdef void sift_down(self, Py_ssize_t index) noexcept:
        cdef void *entry = self.heap[index]
        cdef double due = (<Task>entry).due
        cdef Py_ssize_t child
        while True:
            child = 2 * index + 1
            if child >= self.timers:
                break
            if (child + 1 < self.timers
                    and (<Task>self.heap[child + 1]).due < (<Task>self.heap[child]).due):
                child += 1
            if (<Task>self.heap[child]).due >= due:
                break
            self.put(index, self.heap[child])
            index = child
        self.put(index, entry)

    cdef int arm(self, Task task, double due) except -1:
        """Fire `task` at `due`, or earlier: a task that is fired too early arms itself again.

        A fiber with a time limit for each read gets a later limit with each read. Its old entry
        stays in the heap until it fires: a comparison for each read instead of a heap operation.
        """
        cdef void **grown
        if task.place >= 0:
            if task.due <= due:
                return 0
            self.disarm(task)
        if self.timers == self.heap_capacity:
            grown = <void **>realloc(
                self.heap, max(64, 2 * self.heap_capacity) * sizeof(void *))
            if grown is NULL:
                raise MemoryError
            self.heap = grown
            self.heap_capacity = max(64, 2 * self.heap_capacity)
        Py_INCREF(task)
        task.due = due
        self.put(self.timers, <void *>task)
        self.timers += 1
        self.sift_up(task.place)
        return 0

    cdef int disarm(self, Task task) except -1:
        """Undo `arm`."""
        cdef Py_ssize_t index = task.place
        cdef void *last
        if index < 0:
            return 0
        task.place = -1
        self.timers -= 1
        if index < self.timers:
            last = self.heap[self.timers]
            self.put(index, last)
            self.sift_down(index)
            self.sift_up((<Task>last).place)
        Py_DECREF(task)
        return 0

    cdef int expire(self) except -1:
        """Fire the tasks that are due."""
        cdef double now
        cdef Task task
        if self.timers == 0:
            return 0
        now = monotonic()
        while self.timers:
            task = <Task>self.heap[0]
            if task.due > now:
                break
            self.disarm(task)
            task.fire(self, now)
        return 0

    # --- the wait --------------------------------------------------------------------------

    cdef double next_due(self):
        """When there is something to do though no descriptor is ready; infinity: never."""
        cdef double due = (<Task>self.heap[0]).due if self.timers else NEVER
        return due if self.postponed is None else min(due, monotonic() + PAUSE)

    cdef double remaining(self, double limit):
        """Seconds until `limit` or the first timer; infinite when there is neither."""
        if self.timers and (<Task>self.heap[0]).due < limit:
            return (<Task>self.heap[0]).due - monotonic()
        return limit if limit == NEVER else limit - monotonic()

    cdef int wait(self, double limit) except -1:
        """Wait until `limit` at most (0: do not wait), and queue what became ready."""
        cdef epoll_event events[BATCH]
        cdef int count, code, milliseconds, epoll_fd = self.epoll_fd
        cdef double left
        if epoll_fd < 0:
            raise RuntimeError("the loop is closed")
        if self.postponed is not None:
            self.register_postponed()
            if self.postponed is not None:
                limit = min(limit, monotonic() + PAUSE)
        while True:
            if limit <= 0.0:
                count = epoll_wait(epoll_fd, events, BATCH, 0)
                code = errno
            else:
                left = self.remaining(limit) * 1e3
                milliseconds = (0 if left <= 0.0
                                else LONGEST_WAIT if left >= LONGEST_WAIT - 1
                                else <int>left + 1)
                PyErr_CheckSignals()
                self.idle = True
                with nogil:
                    count = epoll_wait(epoll_fd, events, BATCH, milliseconds)
                code = errno             # before the callback sets another
                self.idle = False
                if self.on_active is not None:
                    self.report_active()
            if count >= 0:
                break
            if code != EINTR:
                self.pause(code, limit)
                count = 0
                break
            PyErr_CheckSignals()
        self.dispatch(events, count)
        return self.expire()

    cdef int pause(self, int code, double limit) except -1:
        """The kernel could not wait: sleep instead, not past `limit`, if it had run out of something."""
        cdef int milliseconds
        error = OSError(code, os.strerror(code))
        if code not in EXHAUSTED:
            raise error
        log_exhaustion(error)
        if limit > 0.0:
            milliseconds = max(0, <int>(1e3 * min(<double>PAUSE, self.remaining(limit))))
            with nogil:
                poll(NULL, 0, milliseconds)
        return 0

    cdef int report_active(self) except -1:
        """Call what `call_when_active` has left."""
        callback, self.on_active = self.on_active, None
        callback()
        return 0

    cdef int dispatch(self, void *found, int count) except -1:
        cdef epoll_event *events = <epoll_event *>found
        cdef int i, fd
        cdef Watch watch
        for i in range(count):
            fd = <int><uint32_t>events[i].data.u64   # no mask: 0xffffffff would be a Python int
            if fd == self.wakeup_fd:
                self.drain()
                continue
            if fd >= self.capacity or self.watches[fd] is NULL:
                continue
            watch = <Watch>self.watches[fd]
            if watch.generation != <unsigned int>(events[i].data.u64 >> 32):
                continue
            if watch.callback is not None:
                self.fired.append(watch.callback)
            else:
                watch.wake(events[i].events)
        return 0

    cdef void drain(self) noexcept:
        cdef uint64_t count
        self.notifying = False
        self.notified = True
        read(self.wakeup_fd, &count, sizeof(count))

    cdef int notify(self) noexcept:
        cdef uint64_t one = 1
        if not self.notifying and self.wakeup_fd >= 0:
            self.notifying = True
            write(self.wakeup_fd, &one, sizeof(one))
        return 0

    def wake(self):
        """End the wait that runs or comes next. For any thread and for signal handlers."""
        self.notify()

    def call_when_active(self, callback):
        """Have `callback()` called once, when the present wait ends or a turn begins."""
        self.on_active = callback

    def abandon(self):
        """In a child of fork: close the loop; what the parent shares with it stays untouched."""
        self.close()
