"""Cold variants: the first request for each, through our whole server, against a bare loop and thumbor."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from benchmarks.bare import BareLoop, Pace, bare_loop
from benchmarks.client import ask_each_once, get
from benchmarks.corpus import Corpus
from benchmarks.options import Options
from benchmarks.processes import cpu_s
from benchmarks.report import Table, median, ratio
from benchmarks.servers import Server, lazypix, thumbor
from benchmarks.stock import stock
from benchmarks.tasks import Task, tasks

_CONNECTIONS = 4
_WARM = 16
_NOTE = (
    "Two processes each (bare loop: thumbnail_buffer and the saver with our encoder settings; ours: a server and two "
    f"renderers; thumbor: no result storage), {_CONNECTIONS} connections from the same cores. "
    "Every request of ours is the first one for its variant: read, rendered, stored durably, catalogued, answered. "
    "CPU: all processes of the server (without the client), for one request."
)

_WHO = ("bare", "ours", "baseline", "thumbor")
Results = dict[tuple[str, str], list[Pace]]


def run(options: Options, corpus: Corpus, folder: Path) -> list[Table]:
    """Measure; rounds are interleaved, figures are medians of the rounds."""
    chosen = [_fewer(task, options) for task in tasks(corpus)]
    data = folder / "cold-data"
    _fill(data, corpus, chosen, options.rounds)
    results: Results = defaultdict(list)
    with contextlib.ExitStack() as stack:
        loop = stack.enter_context(bare_loop())
        ours = stack.enter_context(lazypix(data, folder))
        theirs = None
        if options.thumbor is not None:
            theirs = stack.enter_context(thumbor(options.thumbor, corpus.folder, folder, processes=2))
        _warm(chosen, ours, theirs)
        for number in range(options.rounds):
            for task in chosen:
                _round(task, number, corpus, loop, ours, theirs, results)
    return [_table(chosen, results, with_thumbor=theirs is not None)]


def _round(
    task: Task, number: int, corpus: Corpus, loop: BareLoop, ours: Server, theirs: Server | None, results: Results
) -> None:
    path = corpus.path(task.file)
    results[task.name, "bare"].append(loop.run(task, path))
    results[task.name, "ours"].append(_ask(ours, _requests(task, f"r{number}")))
    if task.format == "jpg":
        results[task.name, "baseline"].append(loop.run(task, path, progressive=False))
    if theirs is not None:
        results[task.name, "thumbor"].append(_ask(theirs, [get(task.thumbor_path())] * task.count))


def _ask(server: Server, requests: list[bytes]) -> Pace:
    before = cpu_s(server.pid)
    seconds = ask_each_once(server.port, requests, connections=_CONNECTIONS)
    used_s = cpu_s(server.pid) - before
    return Pace(per_s=len(requests) / seconds, cpu_ms=used_s * 1000 / len(requests))


def _warm(chosen: list[Task], ours: Server, theirs: Server | None) -> None:
    for task in chosen:
        ask_each_once(ours.port, _requests(task, "warm")[:_WARM], connections=_CONNECTIONS)
        if theirs is not None:
            ask_each_once(theirs.port, [get(task.thumbor_path())] * 4, connections=2)


def _fill(data: Path, corpus: Corpus, chosen: list[Task], rounds: int) -> None:
    idents: dict[str, list[str]] = defaultdict(list)
    for task in chosen:
        for label in ("warm", *(f"r{number}" for number in range(rounds))):
            idents[task.file] += _idents(task, label)
    for file, names in idents.items():
        stock(data, corpus.path(file), names)


def _requests(task: Task, label: str) -> list[bytes]:
    return [get(task.lazypix_path(ident)) for ident in _idents(task, label)]


def _idents(task: Task, label: str) -> list[str]:
    """Return idents that no other task and no other round has."""
    word = "".join(c if c.isalnum() and c.isascii() else "-" for c in task.name)
    count = min(_WARM, task.count) if label == "warm" else task.count
    return [f"{word}_{label}_{number}" for number in range(count)]


def _fewer(task: Task, options: Options) -> Task:
    return replace(task, count=max(8, task.count // options.divisor))


def _table(chosen: list[Task], results: Results, *, with_thumbor: bool) -> Table:
    columns = ["cold variant", "bare loop, /s", "ours / bare", "ours / bare baseline", "bare, CPU ms", "ours, CPU ms"]
    table = Table(title="Cold variants", note=_NOTE, columns=[*columns, "ours / thumbor"])
    for task in chosen:
        rates = {who: [pace.per_s for pace in results[task.name, who]] for who in _WHO}
        used = {who: [pace.cpu_ms for pace in results[task.name, who]] for who in ("bare", "ours")}
        table.add(
            task.name,
            median(rates["bare"], 1),
            ratio(rates["ours"], rates["bare"]),
            ratio(rates["ours"], rates["baseline"]) if rates["baseline"] else "–",
            median(used["bare"], 1),
            median(used["ours"], 1),
            ratio(rates["ours"], rates["thumbor"]) if with_thumbor else "–",
        )
    return table
