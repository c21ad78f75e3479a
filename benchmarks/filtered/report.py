"""The lines of a run as a table, as curves, and as one HTML page that needs no other file.

Rates are queries a second of one core (`qps_cpu`), which a busy machine falsifies least. A rate
counts where the recall is reached and no row was given that does not pass; elsewhere stands "-",
and "wrong" where rows did not pass.
"""

import base64
import html
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from benchmarks.filtered.run import BUILD, FAILED, REPORT, SWEEP, UNSUPPORTED

Line = Mapping[str, Any]
Rows = list[list[str]]

OWN: Final = "facedex"
RATE: Final = "qps_cpu"
NOT_REACHED, NOT_ABLE, WRONG, BROKEN = "-", "no", "wrong", "failed"
PANELS_A_ROW: Final = 3
PANEL_INCHES: Final = (5.0, 3.6)
RECALL_SHOWN_MIN: Final = 0.5
MARKS: Final = "osv^D<>ph*XPd"
PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Filtered search</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 90rem; margin: 2rem auto }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 1rem 0 }}
th, td {{ border: 1px solid #ccc; padding: .25rem .6rem; text-align: right }}
th:first-child, td:first-child {{ text-align: left }}
img {{ max-width: 100% }}
</style></head><body><h1>Filtered search</h1>{body}</body></html>
"""


def table(results: Sequence[Line]) -> str:
    """Markdown, for each data set: its cells with every engine's rate, builds, and troubles."""
    return "\n\n".join(
        part
        for name, lines in _by_run(results)
        for part in (
            f"## {name}",
            _markdown(rates(lines)),
            _markdown(builds(lines)),
            "\n".join(f"* {trouble}" for trouble in troubles(lines)),
        )
        if part
    )


def rates(lines: Sequence[Line]) -> Rows:
    """Cells down, engines across, and how many times faster Facedex is than the best of a kind."""
    engines = list(dict.fromkeys(line["engine"] for line in lines))
    shown: dict[tuple[str, str], Line] = {}
    for line in lines:
        if line["what"] == REPORT:
            key = (line["cell"], line["engine"])
            shown[key] = better(shown.get(key), line)
    unable = {
        (line["cell"], line["engine"]): NOT_ABLE if line["what"] == UNSUPPORTED else BROKEN
        for line in lines
        if line["what"] in (UNSUPPORTED, FAILED)
    }
    cells = list(dict.fromkeys(line["cell"] for line in lines if line["cell"] is not None))
    head = ["filter", *engines, "x best FAISS", "x best database"]
    rows = []
    for cell in cells:
        found = {name: shown[cell, name] for name in engines if (cell, name) in shown}
        values = [
            _rate(found[name]) if name in found else unable.get((cell, name), "")
            for name in engines
        ]
        rows.append([cell, *values, ratio(found, "faiss"), ratio(found, "database")])
    return [head, *rows]


def better(one: Line | None, other: Line) -> Line:
    """Of two settings of an engine the faster that counts, or else the more exact."""
    if one is None:
        return other

    def worth(line: Line) -> tuple[bool, float]:
        return counts(line), line[RATE] if counts(line) else line["recall"] or 0.0

    return max(one, other, key=worth)


def ratio(found: Mapping[str, Line], family: str) -> str:
    """Facedex against the fastest of a family in one cell."""
    rivals = [line[RATE] for line in found.values() if line["family"] == family and counts(line)]
    own = found.get(OWN)
    if own is None or not counts(own) or not rivals:
        return NOT_REACHED
    return f"{own[RATE] / max(rivals):.2g}"


def counts(line: Line) -> bool:
    """Whether a rate may be compared: the recall is there, and every row passes."""
    reached = line["recall"] is None or line["recall"] >= line["target"]
    return reached and not line["violations"]


def builds(lines: Sequence[Line]) -> Rows:
    """What each engine's index took and takes."""
    rows = [
        [
            line["engine"],
            str(line["version"]),
            f"{line['seconds']:.1f}",
            f"{line['cpu_seconds']:.1f}",
            _mebibytes(line["disk_bytes"]),
            _mebibytes(line["rss_bytes"]),
            _mebibytes(line["private_bytes"]),
        ]
        for line in lines
        if line["what"] == BUILD
    ]
    head = ["engine", "version", "build s", "CPU s", "disk MiB", "RSS MiB", "private MiB"]
    return [head, *rows] if rows else []


def troubles(lines: Sequence[Line]) -> list[str]:
    """Failures, filters that an engine cannot read, wrong rows and short answers."""
    told = []
    worked = {(line["engine"], line["cell"]) for line in lines if line["what"] in (BUILD, REPORT)}
    for line in lines:
        if line["what"] == FAILED and (line["engine"], line["cell"]) in worked:
            continue  # a later run did it
        where = f"{line['engine']}, {line['cell'] or 'build'}"
        if line["what"] in (FAILED, UNSUPPORTED):
            told.append(f"{where}: {line['what']}: {line['reason']}")
        elif line["what"] == REPORT and line["violations"]:
            told.append(f"{where}: {line['violations']} rows that do not pass")
        elif line["what"] == REPORT and line["short"]:
            told.append(f"{where}: {line['short']} of {line['queries']} answers are short")
    return list(dict.fromkeys(told))


def plot(results: Sequence[Line], folder: Path) -> list[Path]:
    """Curves as PNG, one picture for each data set and kind of filters, and `index.html`."""
    folder.mkdir(parents=True, exist_ok=True)
    written, body = [], []
    for name, lines in _by_run(results):
        body.append(f"<h2>{html.escape(name)}</h2>")
        body += [_html(rates(lines)), _html(builds(lines))]
        body += [f"<p>{html.escape(trouble)}</p>" for trouble in troubles(lines)]
        for kind, cells in _kinds(lines):
            picture = _curves(cells, lines)
            path = folder / f"{_file_name(name)}-{_file_name(kind)}.png"
            path.write_bytes(picture)
            written.append(path)
            encoded = base64.b64encode(picture).decode()
            body.append(
                f'<h3>{html.escape(kind)}</h3><img alt="recall and queries a second"'
                f' src="data:image/png;base64,{encoded}">'
            )
    page = folder / "index.html"
    page.write_text(PAGE.format(body="\n".join(body)), encoding="utf-8")
    return [*written, page]


def front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points (recall, rate) that no other beats in both, by recall.

    >>> front([(0.9, 5.0), (0.8, 4.0), (1.0, 1.0), (0.95, 5.0)])
    [(0.95, 5.0), (1.0, 1.0)]
    """
    kept: list[tuple[float, float]] = []
    for recall, rate in sorted(points, reverse=True):
        if not kept or rate > kept[-1][1]:
            kept.append((recall, rate))
    return kept[::-1]


def _by_run(results: Sequence[Line]) -> Iterator[tuple[str, list[Line]]]:
    """The lines of each data set, count and number of threads, under a heading."""
    runs: dict[str, list[Line]] = {}
    for line in results:
        threads = "" if line["threads"] == 1 else f", {line['threads']} threads"
        name = f"{line['data']}: {line['rows']} x {line['dimension']}, k = {line['count']}{threads}"
        runs.setdefault(name, []).append(line)
    yield from runs.items()


def _kinds(lines: Sequence[Line]) -> Iterator[tuple[str, list[str]]]:
    """The cells of each kind of filters."""
    kinds: dict[str, dict[str, None]] = {}
    for line in lines:
        if line["what"] in (SWEEP, REPORT):
            kinds.setdefault(line["kind"], {})[line["cell"]] = None
    yield from ((kind, list(cells)) for kind, cells in kinds.items())


def _curves(cells: Sequence[str], lines: Sequence[Line]) -> bytes:
    """One panel for each cell."""
    from matplotlib.backends.backend_agg import (  # type: ignore[import-not-found,unused-ignore]
        FigureCanvasAgg,
    )
    from matplotlib.figure import Figure  # type: ignore[import-not-found,unused-ignore]

    across = min(PANELS_A_ROW, len(cells))
    down = -(-len(cells) // PANELS_A_ROW)
    width, height = PANEL_INCHES
    figure = Figure(figsize=(width * across, height * down), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(down, across, squeeze=False)
    engines = list(dict.fromkeys(line["engine"] for line in lines))
    for place, panel in enumerate(panels.flat):
        if place < len(cells):
            _draw(panel, cells[place], lines, engines)
        else:
            panel.set_axis_off()
    handles = {
        label: handle
        for panel in panels.flat
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    if handles:
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=5)
    picture = BytesIO()
    figure.savefig(picture, format="png", dpi=100)
    return picture.getvalue()


def _draw(panel: Any, cell: str, lines: Sequence[Line], engines: Sequence[str]) -> None:
    panel.set_title(cell, fontsize=10)
    panel.set_yscale("log")
    panel.set_xlabel("recall")
    panel.set_ylabel("queries a second of one core")
    panel.grid(visible=True, alpha=0.3)
    for number, engine in enumerate(engines):
        points = front(
            [
                (line["recall"], line[RATE])
                for line in lines
                if line["what"] in (SWEEP, REPORT)
                and (line["cell"], line["engine"]) == (cell, engine)
                and (line["recall"] or 0.0) >= RECALL_SHOWN_MIN
            ]
        )
        if points:
            recalls, values = zip(*points, strict=True)
            panel.plot(
                recalls,
                values,
                label=engine,
                color=f"C{number % 10}",
                marker=MARKS[number % len(MARKS)],
                linewidth=2.5 if engine == OWN else 1.0,
                markersize=4,
            )


def _rate(line: Line) -> str:
    if line["violations"]:
        return WRONG
    if not counts(line):
        return NOT_REACHED
    return f"{line[RATE]:,.0f}" if line[RATE] >= 10 else f"{line[RATE]:.1f}"


def _mebibytes(count: int) -> str:
    return f"{count / 2**20:,.0f}"


def _markdown(rows: Rows) -> str:
    if not rows:
        return ""
    head, *others = [[cell.replace("|", r"\|") for cell in row] for row in rows]
    line = ["---", *("---:" for _ in head[1:])]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, line, *others))


def _html(rows: Rows) -> str:
    if not rows:
        return ""
    head, *others = rows
    return (
        "<table>"
        + _html_row(head, "th")
        + "".join(_html_row(row, "td") for row in others)
        + "</table>"
    )


def _html_row(row: Sequence[str], tag: str) -> str:
    escaped: Callable[[str], str] = html.escape
    return "<tr>" + "".join(f"<{tag}>{escaped(cell)}</{tag}>" for cell in row) + "</tr>"


def _file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name).strip("-")
