"""What a stream raises by itself; the operating system's errors and the file protocol's stay theirs.

Both the compiled stream and its reference raise these.
"""

from everserve.errors import EverserveError


class LineTooLong(EverserveError, ValueError):
    """The peer has sent more bytes without a newline than `max_line` allows. Its fault, not ours."""
