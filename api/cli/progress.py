"""The progress bars: on standard error, only where a person watches."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

from indexer.pipeline import Tally


@contextmanager
def ingest_bar(total: int | None) -> Iterator[Callable[[Tally], None]]:
    """A bar with images/s, faces, refused and the time left."""
    # disable=None: tqdm stays silent where standard error is no terminal.
    with tqdm(total=total, unit="image", disable=None, dynamic_ncols=True) as bar:

        def show(tally: Tally) -> None:
            bar.set_postfix(faces=tally.faces, refused=len(tally.refused), refresh=False)
            bar.update(tally.seen - bar.n)

        yield show


@contextmanager
def row_bar(unit: str = "row") -> Iterator[Callable[[int, int], None]]:
    """A bar for (done, total)."""
    with tqdm(unit=unit, unit_scale=True, disable=None, dynamic_ncols=True) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show


@contextmanager
def stage_bar() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for (what is done, done, total) that begins anew with each thing that is done."""
    with tqdm(disable=None, dynamic_ncols=True) as bar:
        shown = ""

        def show(what: str, done: int, total: int) -> None:
            nonlocal shown
            if what != shown:
                shown = what
                bar.set_description(what)
                bar.reset(total)
            bar.total = total
            bar.update(done - bar.n)

        yield show
