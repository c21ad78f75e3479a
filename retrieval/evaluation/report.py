"""A page of figures: tables and curves as one HTML file, PNG, Parquet and JSON.

Figures only: no picture of a face, no name, no number of a person or face gets here. Matplotlib
draws (`pip install 'facedex[evaluation]'`); without it there is no page, and every number is there.
"""

import base64
import html
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from retrieval.errors import UsageError
from retrieval.evaluation.resampling import Doubles

INCHES: Final = (6.4, 4.4)
DOTS_AN_INCH: Final = 120
POINTS_MARKED_MAX: Final = 10
POINTS_ASIDE: Final = 0.1  # so that bars of two lines do not hide each other
PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 1rem 0 }}
th, td {{ border: 1px solid #ccc; padding: .25rem .6rem; text-align: right }}
th:first-child, td:first-child {{ text-align: left }}
img {{ max-width: 100% }}
</style></head><body><h1>{title}</h1>{body}</body></html>
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One curve, with a band around it where there is one."""

    name: str
    x: Doubles
    y: Doubles
    low: Doubles | None = None
    high: Doubles | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """Curves over one pair of axes; the name is that of its file."""

    name: str
    title: str
    x: str
    y: str
    lines: tuple[Line, ...]
    ticks: tuple[str, ...] = ()  # names of x = 0, 1, ...: then there are points, and no curves
    x_logarithmic: bool = False
    y_logarithmic: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of text under a heading."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """All that a report shows."""

    title: str
    notes: tuple[str, ...]
    tables: tuple[Table, ...]
    drawings: tuple[Drawing, ...]
    curves: pa.Table


def require_drawing() -> None:
    """Raise UsageError where matplotlib is missing: before the work, not after it."""
    if find_spec("matplotlib") is None:
        raise UsageError(
            "--out draws with matplotlib: pip install 'facedex[evaluation]', or leave --out away"
        )


def write(page: Page, folder: Path, *, figures: Mapping[str, Any]) -> list[Path]:
    """Write figures.json, curves.parquet, a PNG for each drawing, and index.html.

    Raises:
        UsageError: matplotlib is missing, or the folder cannot be made.
    """
    require_drawing()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as cause:
        raise UsageError(f"{folder} cannot be made: {cause.strerror}") from cause
    written = [folder / "figures.json", folder / "curves.parquet"]
    written[0].write_text(json.dumps(figures, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    pq.write_table(page.curves, written[1])
    body = [f"<p>{html.escape(note)}</p>" for note in page.notes]
    body += [_html(table) for table in page.tables]
    for drawing in page.drawings:
        picture = drawn(drawing)
        written.append(folder / f"{drawing.name}.png")
        written[-1].write_bytes(picture)
        encoded = base64.b64encode(picture).decode()
        alternative = html.escape(drawing.title)
        body.append(f'<img alt="{alternative}" src="data:image/png;base64,{encoded}">')
    written.append(folder / "index.html")
    told = PAGE.format(title=html.escape(page.title), body="\n".join(body))
    written[-1].write_text(told, encoding="utf-8")
    return written


def drawn(drawing: Drawing) -> bytes:
    """The drawing as a PNG."""
    from matplotlib.backends.backend_agg import (  # type: ignore[import-not-found,unused-ignore]
        FigureCanvasAgg,
    )
    from matplotlib.figure import Figure  # type: ignore[import-not-found,unused-ignore]

    figure = Figure(figsize=INCHES, dpi=DOTS_AN_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set(title=drawing.title, xlabel=drawing.x, ylabel=drawing.y)
    axes.set_xscale("log" if drawing.x_logarithmic else "linear")
    axes.set_yscale("log" if drawing.y_logarithmic else "linear")
    if drawing.ticks:
        axes.set_xticks(range(len(drawing.ticks)), drawing.ticks)
    for place, line in enumerate(drawing.lines):
        if drawing.ticks:
            _draw_points(axes, line, aside=place * POINTS_ASIDE)
        else:
            _draw_curve(axes, line)
    axes.grid(visible=True, alpha=0.4)
    axes.legend()
    picture = BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()


def _draw_curve(axes: Any, line: Line) -> None:
    # Dots where a curve has few points, which were measured one by one.
    marker = "o" if len(line.x) <= POINTS_MARKED_MAX else None
    axes.plot(line.x, line.y, label=line.name, marker=marker)
    if line.low is not None and line.high is not None:
        axes.fill_between(line.x, line.low, line.high, alpha=0.25)


def _draw_points(axes: Any, line: Line, *, aside: float) -> None:
    """Points with the bars of their intervals; one without an interval has no bar."""
    ends = [line.y if bound is None else bound for bound in (line.low, line.high)]
    low, high = (np.where(np.isnan(end), line.y, end) for end in ends)
    bars = np.abs(np.stack([line.y - low, high - line.y]))
    axes.errorbar(line.x + aside, line.y, yerr=bars, fmt="o", capsize=4, label=line.name)


def _html(table: Table) -> str:
    """A table of HTML under its heading."""

    def row(cells: tuple[str, ...], tag: str) -> str:
        return f"<tr>{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in cells)}</tr>"

    rows = [row(table.header, "th"), *(row(cells, "td") for cells in table.rows)]
    return f"<h2>{html.escape(table.title)}</h2><table>{''.join(rows)}</table>"
