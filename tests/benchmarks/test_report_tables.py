"""What stands in a report follows from the lines of a run, and from nothing else."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from api.cli.bench import bench_command
from api.cli.output import Session
from benchmarks.filtered.report import counts, plot, rates, table, troubles
from retrieval.errors import UsageError

ABOUT = {
    "data": "made up", "rows": 1000, "dimension": 16, "count": 10, "target": 0.95, "threads": 1,
    "seed": 0, "version": "1", "kind": "range",
}  # fmt: skip


def line(what: str, engine: str, cell: str | None = "50 %", **more: Any) -> dict[str, Any]:
    family = {"facedex": "facedex", "faiss-ivf": "faiss", "faiss-hnsw": "faiss"}.get(engine)
    return {**ABOUT, "what": what, "engine": engine, "family": family or "database", "cell": cell,
            **more}  # fmt: skip


def report(engine: str, rate: float, recall: float | None = 0.96, **more: Any) -> dict[str, Any]:
    counted = {"violations": 0, "short": 0, "queries": 100, **more}
    return line("report", engine, qps_cpu=rate, qps=rate, recall=recall, **counted)


LINES = [
    line("build", "facedex", None, seconds=1.0, cpu_seconds=1.5, disk_bytes=2**20,
         rss_bytes=2**21, private_bytes=2**22, peak_bytes=2**23),
    line("sweep", "faiss-ivf", qps_cpu=900.0, recall=0.7),
    line("sweep", "faiss-ivf", qps_cpu=500.0, recall=0.97),
    report("facedex", 6000.0),
    report("faiss-ivf", 500.0),
    report("faiss-hnsw", 2000.0),
    report("zvec", 3000.0, violations=4),
    report("qdrant-edge", 1000.0),
    report("lancedb", 9000.0, recall=0.94),
    line("unsupported", "chroma", reason="no order of texts"),
    line("failed", "pgvector", reason="out of memory"),
]  # fmt: skip


def test_rates_stand_where_the_recall_is_reached_and_every_row_passes() -> None:
    head, row = rates(LINES)
    assert dict(zip(head, row, strict=True)) == {
        "filter": "50 %", "facedex": "6,000", "faiss-ivf": "500", "faiss-hnsw": "2,000",
        "zvec": "wrong", "qdrant-edge": "1,000", "lancedb": "-", "chroma": "no",
        "pgvector": "failed", "x best FAISS": "3", "x best database": "6",
    }  # fmt: skip


def test_of_two_settings_the_faster_that_reaches_the_recall_stands() -> None:
    both = [
        report("faiss-ivf", 900.0, 0.94),
        report("faiss-ivf", 500.0),
        report("faiss-ivf", 400.0),
    ]
    assert rates(both)[1][1] == "500"
    assert rates(both[:1])[1][1] == "-"


def test_a_ratio_needs_both_sides() -> None:
    assert rates([report("facedex", 6000.0, recall=0.5), report("faiss-ivf", 500.0)])[1][-2] == "-"
    assert rates([report("facedex", 6000.0)])[1][-2:] == ["-", "-"]


def test_an_empty_answer_to_an_empty_filter_counts() -> None:
    assert counts(report("facedex", 1.0, recall=None))


def test_troubles_are_told_once() -> None:
    assert troubles([*LINES, *LINES]) == [
        "zvec, 50 %: 4 rows that do not pass",
        "chroma, 50 %: unsupported: no order of texts",
        "pgvector, 50 %: failed: out of memory",
    ]


def test_the_table_is_markdown() -> None:
    written = table(LINES)
    assert written.startswith("## made up: 1000 x 16, k = 10\n\n| filter | facedex |")
    assert "| facedex | 1 | 1.0 | 1.5 | 1 | 2 | 4 |" in written


def test_curves_and_a_page_that_needs_no_other_file(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    written = plot([*LINES, line("failed", "<engine>", reason="<b>")], tmp_path)
    assert [path.suffix for path in written] == [".png", ".html"]
    assert written[0].read_bytes().startswith(b"\x89PNG")
    page = written[1].read_text()
    assert "data:image/png;base64," in page
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    assert "http" not in page


def invoked(*words: str) -> Any:
    return CliRunner().invoke(bench_command, words, obj=Session(options={}))


def test_the_command_lists_data_sets() -> None:
    answer = invoked("datasets", "--json")
    assert answer.exit_code == 0
    assert "faces:N" in answer.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--data", "facse:3"], "there is no data set 'facse:3'"),
        (["--data", "faces:many"], "no number of faces"),
        (["--data", "fbin:one"], "a comma between"),
    ],
)
def test_the_command_says_what_is_wrong(words: list[str], said: str, tmp_path: Path) -> None:
    answer = invoked("run", *words, "--work", str(tmp_path))
    assert isinstance(answer.exception, UsageError)
    assert said in str(answer.exception)
