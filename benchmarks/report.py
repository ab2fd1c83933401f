"""From samples to figures: medians, ratios, targets; as Markdown, JSON and a plot.

A ratio is taken between two servers within one round, then the median over the rounds: a slow phase of
the machine affects both servers, and cancels out.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from textwrap import fill
from typing import Any

from benchmarks.machine import Interpreter
from benchmarks.measure import Figures
from benchmarks.peers import PEERS
from benchmarks.programs import TLS
from benchmarks.works import WORKS, Column, Target, Work

#: What a server did in each round; None where it failed.
Samples = list[Figures | None]


@dataclass
class Results:
    """All measurements of one interpreter's run: work -> peer -> a sample for each round."""

    interpreter: dict[str, Any]
    machine: dict[str, str]
    settings: dict[str, Any]
    samples: dict[str, dict[str, Samples]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, work: Work, peer: str, sample: Figures | None) -> None:
        self.samples.setdefault(work.name, {}).setdefault(peer, []).append(sample)

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def values(self, work: Work, peer: str, figure: str) -> list[float]:
        samples = self.samples.get(work.name, {}).get(peer, [])
        return [sample[figure] for sample in samples if sample is not None]

    def ratios(self, work: Work, peer: str, against: str) -> list[float]:
        """``peer`` divided by ``against``, for each round in which both did the work."""
        measured = self.samples.get(work.name, {})
        pairs = zip(measured.get(peer, []), measured.get(against, []), strict=False)
        name = work.figure
        return [own[name] / other[name] for own, other in pairs if own and other and other[name]]


def build(interpreter: Interpreter, machine: dict[str, str], settings: dict[str, Any]) -> Results:
    facts = {name: value for name, value in vars(interpreter).items() if name != "path"}
    return Results(facts, machine, settings)


# ---------------------------------------------------------------- targets


@dataclass(frozen=True)
class Verdict:
    """A target with its measurements; ``values`` has one for each round."""

    work: Work
    target: Target
    values: list[float]

    @property
    def value(self) -> float:
        return median(self.values)

    @property
    def met(self) -> bool:
        return self.target.met(self.value)

    @property
    def title(self) -> str:
        """The work; also everserve's configuration if the targets of the work concern several."""
        if len({target.peer for target in self.work.targets}) == 1:
            return self.work.title
        return f"{self.work.title} ({PEERS[self.target.peer].title})"

    @property
    def _unit(self) -> tuple[str, int]:
        if self.target.against is not None or self.work.constant:
            return " x", 2
        return f" {self.work.unit}", self.work.digits

    def _formatted(self, value: float) -> str:
        unit, digits = self._unit
        return f"{value:.{digits}f}{unit}"

    @property
    def wanted(self) -> str:
        unit, _ = self._unit
        bound = f">= {self.target.least:g}" if self.target.least is not None else ""
        bound = bound or f"<= {self.target.most:g}"
        against = "64 alone" if self.work.constant else self.target.against
        title = PEERS[against].title if against and against in PEERS else against
        return f"{bound}{unit} {title}" if title else f"{bound}{unit}"

    @property
    def measured(self) -> str:
        if len(self.values) == 1:
            return self._formatted(self.value)
        least, most = self._formatted(min(self.values)), self._formatted(max(self.values))
        return f"{self._formatted(self.value)} ({least.split()[0]} - {most.split()[0]})"


def verdicts(results: Results) -> list[Verdict]:
    """Every target that could be judged, in the order of the works."""
    found = []
    for work in WORKS.values():
        for target in work.targets:
            if target.against is None:
                values = results.values(work, target.peer, work.judged)
            else:
                values = results.ratios(work, target.peer, target.against)
            if values:
                found.append(Verdict(work, target, values))
    return found


# ---------------------------------------------------------------- Markdown


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    align = ["---", *["---:"] * (len(head) - 1)]
    return ["| " + " | ".join(row) + " |" for row in (head, align, *rows)]


def _own_server(work: Work, measured: dict[str, Samples]) -> str | None:
    """The everserve configuration that a work is about: the first that was measured."""
    return next(
        (name for name in work.peers if PEERS[name].is_everserve and name in measured), None
    )


def _extra(work: Work, results: Results, name: str) -> list[str]:
    def formatted(column: Column) -> str:
        values = [value for value in results.values(work, name, column.figure) if value]
        return column.formatted(median(values)) if values else "-"

    return [formatted(column) for column in work.columns]


def _work_table(work: Work, results: Results) -> list[str]:
    measured = results.samples[work.name]
    own = _own_server(work, measured)
    names = [name for name in measured if results.values(work, name, work.figure)]
    names.sort(
        key=lambda name: median(results.values(work, name, work.figure)),
        reverse=not work.less_is_better,
    )
    rows = []
    for name in names:
        ratios = results.ratios(work, own, name) if own else []
        title = PEERS[name].title
        rows.append(
            [
                f"**{title}**" if PEERS[name].is_everserve else title,
                work.formatted(median(results.values(work, name, work.figure))),
                f"{median(ratios):.2f}" if ratios else "-",
                *_extra(work, results, name),
            ]
        )
    ratio = f"{PEERS[own].title} / it" if own else "ratio"
    titles = [column.title for column in work.columns]
    return _table(["server", work.unit, ratio, *titles], rows)


def _heading(results: Results) -> list[str]:
    facts, settings = results.interpreter, results.settings
    packages = [f"{name} {version}" for name, version in facts["packages"].items() if version]
    pinned = "server and load on a core each" if settings["pinned"] else "not pinned to cores"
    return [
        f"# {facts['implementation']} {facts['python']}",
        "",
        f"{settings['rounds']} interleaved rounds of {settings['seconds']:g} s, {pinned}; medians.",
        "",
        *(f"- {name}: {value}" for name, value in results.machine.items()),
        f"- engine of everserve: {facts['engine'] or 'not installed'}",
        f"- packages: {', '.join(packages) or 'none'}",
        f"- {TLS}; {facts['openssl']}",
        f"- measured: {settings['date']}",
        "",
    ]


def targets_table(results: Results) -> list[str]:
    rows = [
        [
            verdict.title,
            verdict.wanted,
            verdict.measured,
            "yes" if verdict.met else "**no**",
        ]
        for verdict in verdicts(results)
    ]
    if not rows:
        return ["No target could be judged: no server of everserve was measured.", ""]
    return [*_table(["work", "target", "measured", "met"], rows), ""]


def markdown(results: Results, plot: str | None = None) -> str:
    lines = [*_heading(results), "## Targets", "", *targets_table(results)]
    if plot:
        lines += [f"![Figures of all servers]({plot})", ""]
    for work in WORKS.values():
        if work.name in results.samples:
            lines += [f"## {work.title}", "", *_work_table(work, results), ""]
    if results.notes:
        lines += ["## Notes", "", *(f"- {note}" for note in results.notes), ""]
    return "\n".join(lines)


# ---------------------------------------------------------------- files


def save(results: Results, directory: Path, name: str) -> list[Path]:
    """Write the Markdown and the JSON file, and the plot if it can be drawn; returns the paths."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = [directory / f"{name}.json", directory / f"{name}.md"]
    paths[0].write_text(json.dumps(vars(results), indent=1) + "\n")
    plot = directory / f"{name}.png"
    drawn = draw(results, plot)
    paths[1].write_text(markdown(results, plot.name if drawn else None))
    return [*paths, plot] if drawn else paths


def load(path: Path) -> Results:
    return Results(**json.loads(path.read_text()))


def draw(results: Results, path: Path) -> bool:
    """A panel of bars for each work. False, and one line of explanation, if matplotlib is missing."""
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - optional
    except ImportError:
        print("no plot: matplotlib is not installed (pip install matplotlib)")
        return False
    works = [WORKS[name] for name in WORKS if name in results.samples]
    rows = (len(works) + 1) // 2
    figure = Figure(figsize=(13, 3.1 * rows), layout="constrained")
    for axes, work in zip(figure.subplots(rows, 2, squeeze=False).flat, works, strict=False):
        _draw_work(axes, work, results)
    for axes in figure.axes[len(works) :]:
        axes.axis("off")
    facts = results.interpreter
    figure.suptitle(f"{facts['implementation']} {facts['python']}, one core for the server")
    figure.savefig(path, dpi=110)
    return True


def _draw_work(axes: Any, work: Work, results: Results) -> None:
    figures = {
        name: median(values) * work.scale
        for name in results.samples[work.name]
        if (values := results.values(work, name, work.figure))
    }
    names = sorted(figures, key=lambda name: figures[name], reverse=work.less_is_better)
    colors = ["#1f6feb" if PEERS[name].is_everserve else "#b8bfc8" for name in names]
    bars = axes.barh(
        [PEERS[name].title for name in names], [figures[n] for n in names], color=colors
    )
    axes.bar_label(
        bars, [f"{figures[name]:,.{work.digits}f}" for name in names], padding=3, fontsize=8
    )
    axes.set_title(fill(f"{work.title} ({work.unit})", 56), fontsize=9, loc="left")
    axes.tick_params(labelsize=8)
    axes.set_xticks([])
    axes.set_xlim(0, 1.2 * max(figures.values()) or 1)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
