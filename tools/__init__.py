"""What `make` runs: find interpreters, set up environments, run the checks, tell how they went.

Needs nothing but the standard library. The Makefile calls `python3 -m tools COMMAND`; `__main__`
holds the commands and `plan` the checks, as data.
"""
