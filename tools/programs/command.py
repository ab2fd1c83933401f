"""The command behind `make programs`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tools.programs import catalogue, suites, table
from tools.programs.cache import Folder, NotAvailable, link_everserve
from tools.programs.catalogue import Program
from tools.programs.processes import Processes
from tools.programs.table import Result

AT_A_TIME = 2  # programs


def check(names: Sequence[str], python: str) -> int:
    """Check the programs of these names (all without one), with everserve of that Python."""
    try:
        programs = catalogue.chosen(catalogue.read(), names)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    results = results_of(programs, link_everserve(python))
    print(*table.lines(results), sep="\n", flush=True)
    return table.status(results)


def results_of(programs: Sequence[Program], everserve: Path) -> list[Result]:
    processes = Processes()
    pool = ThreadPoolExecutor(AT_A_TIME)
    try:
        return list(pool.map(lambda one: result_of(one, everserve, processes), programs))
    finally:
        processes.stop()
        pool.shutdown(cancel_futures=True)


def result_of(program: Program, everserve: Path, processes: Processes) -> Result:
    folder = Folder(program, processes)
    try:
        folder.make()
    except NotAvailable as reason:
        result = Result(program, unavailable=f"not available: {reason}")
    else:
        result = Result(program, suites.run_all(folder, everserve, processes))
    print("...", table.row(result), flush=True)
    return result
