"""The program behind `make`: finds interpreters, sets up environments, runs the checks, reports.

It needs only the standard library. The Makefile calls `python3 -m tools COMMAND`; `__main__` has the
commands, and `plan` has the checks, as data.
"""
