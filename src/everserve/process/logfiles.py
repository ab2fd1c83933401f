"""Log files that are opened anew: what rotates logs has moved them away (SIGUSR1)."""

from __future__ import annotations

import logging

__all__ = ["reopen_log_files"]


def reopen_log_files() -> None:
    """Open the file of each handler of ``logging`` anew, by its name."""
    loggers = [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]
    handlers = {
        handler: None
        for one in loggers
        if isinstance(one, logging.Logger)
        for handler in one.handlers
        if isinstance(handler, logging.FileHandler)
    }
    for handler in handlers:
        handler.acquire()
        try:
            if handler.stream is not None:
                handler.stream.close()
                handler.stream = handler._open()
        except OSError:
            logging.getLogger("everserve").exception("cannot open %s anew", handler.baseFilename)
        finally:
            handler.release()
