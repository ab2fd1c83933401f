"""Runs the handlers of a batch of datagrams; `runs.py` is its reference.

`DatagramFlow` makes a `Run` for each batch that it received, and gives it to the strategy.
"""
from cpython.object cimport PyObject, PyTypeObject
from everserve.sockets._datagrams cimport Exchange

from everserve.sockets.datagrams import report
from everserve.sockets.runs import CONSTRUCTORS, NO_OPS

cdef extern from *:
    """
    /* What an object refers to, as one number. */
    static int everserve_add(PyObject *referent, void *sum) {
        *(size_t *)sum = *(size_t *)sum * 31 + (size_t)referent;
        return 0;
    }
    static size_t everserve_referents(PyObject *object) {
        size_t sum = 0;
        traverseproc traverse = Py_TYPE(object)->tp_traverse;
        if (traverse != NULL) traverse(object, everserve_add, &sum);
        return sum;
    }
    /* True if calling the class makes an object as `object` does, then calls `__init__`, and if
       nothing of the class stands between an object and its attributes. */
    static int everserve_is_plain(PyObject *handler) {
        PyTypeObject *kind = (PyTypeObject *)handler;
        return PyType_Check(handler) && Py_TYPE(handler)->tp_call == PyType_Type.tp_call
            && kind->tp_new == PyBaseObject_Type.tp_new
            && kind->tp_getattro == PyObject_GenericGetAttr
            && kind->tp_setattro == PyObject_GenericSetAttr;
    }
    #define everserve_version(kind) (((PyTypeObject *)(kind))->tp_version_tag)
    #define everserve_new(kind, nothing) \\
        (((PyTypeObject *)(kind))->tp_new((PyTypeObject *)(kind), (nothing), NULL))
    """
    size_t referents "everserve_referents"(object owner)
    bint is_plain "everserve_is_plain"(object handler)
    unsigned int version_of "everserve_version"(PyObject *kind)
    object new_object "everserve_new"(object kind, object nothing)

cdef extern from "Python.h":
    object PyContext_CopyCurrent()
    int PyContext_Enter(object context) except -1
    int PyContext_Exit(object context) except -1
    object PyObject_Vectorcall(object function, PyObject **arguments, size_t n, PyObject *names)

cdef tuple NOTHING = ()


cdef class Calling:
    """Calls one class of handlers: where its constructor is the usual one, without a frame for that.

    What is known of the class holds until the class, or a base of it, changes.
    """

    def __cinit__(self, handler):
        self.handler = handler

    cdef int look(self) except -1:
        """Look at the class as it is now."""
        handler = self.handler
        self.is_usual = is_plain(handler) and handler.__init__ in CONSTRUCTORS
        if self.is_usual:
            self.has_setup = handler.setup not in NO_OPS
            self.version = version_of(<PyObject *>handler)
        return 0

    cdef int call(self, request, address, server) except -1:
        """Make a handler, which handles the request."""
        cdef PyObject *arguments[4]
        if self.version == 0 or self.version != version_of(<PyObject *>self.handler):
            self.look()
        if not self.is_usual:
            arguments[1], arguments[2] = <PyObject *>request, <PyObject *>address
            arguments[3] = <PyObject *>server
            PyObject_Vectorcall(self.handler, arguments + 1, 3, NULL)
            return 0
        handling = new_object(self.handler, NOTHING)
        handling.request = request
        handling.client_address = address
        handling.server = server
        if self.has_setup:
            self.take(handling, handling.setup(), "setup")
        try:
            self.take(handling, handling.handle(), "handle")
        except BaseException:
            self.take(handling, handling.finish(), "finish")
            raise
        self.take(handling, handling.finish(), "finish")
        return 0

    cdef int take(self, handling, result, str hook) except -1:
        """What a hook has returned: a coroutine wants to be run."""
        if result is not None:
            handling._everserve.run_coroutine(result, hook)
        return 0


cdef class Batch:
    """Datagrams that were received together, and how many of them have been taken."""

    def __cinit__(self, list received):
        self.received = received


cdef class Run:
    """Handles the datagrams of a batch, one after the other, with nothing around each.

    `handler(request, address, server)` is called in a context of its own; `on_error(request, address,
    error)` with what it raises. `request` and `address` are those of the handler that runs. Whoever
    makes an entry for it sets `entry`; then `on_end(entry, request)` is called at its end, and says
    whether it was that of the request. `runner` is the thread or fiber.

    `account`, if there is one, admits each, and is told of its beginning and its end. For it are
    `number`, that of the connection; `began`, when it was received (monotonic); `opened`: its handler
    has begun; `emitting`: an event is being emitted; `cut`: some were truncated.
    """

    def __init__(
        self, Exchange exchange, received, handler, server, on_error, on_end, account=None
    ):
        self.exchange = exchange
        self.batch = Batch(received)
        if exchange.calling is None or (<Calling>exchange.calling).handler is not handler:
            exchange.calling = Calling(handler)
        self.calling = <Calling>exchange.calling
        self.server = server
        self.on_error, self.on_end = on_error, on_end
        self.account = account
        self.cut = exchange.cut

    def successor(self):
        """Another run, for what is left of the same batch: this one may wait in a handler."""
        cdef Run run = Run.__new__(Run)
        run.exchange, run.batch = self.exchange, self.batch
        run.calling, run.server = self.calling, self.server
        run.on_error, run.on_end = self.on_error, self.on_end
        run.account, run.cut = self.account, self.cut
        return run

    @property
    def left(self):
        """How many datagrams no handler has begun with."""
        return len(self.batch.received) - self.batch.taken

    def take_rest(self):
        """Those that no handler has begun with; they are another's now."""
        rest = self.batch.received[self.batch.taken:]
        self.batch.taken = len(self.batch.received)
        return rest

    def count(self):
        """How many handlers this run has begun with since the last call."""
        cdef Py_ssize_t counted = self.counted
        self.counted = 0
        return counted

    cpdef take_entry(self):
        """The entry of the datagram that is handled, for one caller alone; `None` if it has none."""
        entry = self.entry
        self.entry = None
        return entry

    def handle(self):
        """Handle what is left."""
        cdef Batch batch = self.batch
        cdef Py_ssize_t n = len(batch.received)
        cdef tuple pair
        self.exchange.hold(n)
        try:
            while batch.taken < n:
                pair = <tuple>batch.received[batch.taken]
                batch.received[batch.taken] = None     # a handler that waits keeps no others alive
                batch.taken += 1
                self.handle_one(pair[0], pair[1])
        finally:
            self.context = None
            for error, request, address in self.exchange.release():
                report(self.on_error, request, address, error)

    cdef int handle_one(self, request, address) except -1:
        self.exchange.request, self.exchange.address = <PyObject *>request, <PyObject *>address
        if self.account is None:
            self.request, self.address = request, address
        elif not self.account.admit(self, request, address):
            return 0
        self.counted += 1
        try:
            self.run_handler(request, address)
        except BaseException as error:
            if self.account is not None:
                self.account.fail(self, error)
            if not isinstance(error, Exception):
                raise
            self.on_error(request, address, error)
        finally:
            self.end_one(request, address)
        return 0

    cdef int run_handler(self, request, address) except -1:
        """In a context that has what it had before the batch: a new one, if a handler has set a variable."""
        if self.context is None:
            self.context = PyContext_CopyCurrent()
            self.variables = referents(self.context)
        PyContext_Enter(self.context)
        try:
            if self.account is not None:
                self.account.open(self)
            self.calling.call(request, address, self.server)
        finally:
            PyContext_Exit(self.context)
            if self.variables == 0 or referents(self.context) != self.variables:
                self.context = None
        return 0

    cdef int end_one(self, request, address) except -1:
        self.request = self.address = None
        if self.entry is not None:
            entry = self.take_entry()
            if self.on_end(entry, request):
                return 0
        if self.account is not None:
            self.account.close(self, address)
        return 0
