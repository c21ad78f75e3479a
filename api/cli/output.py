"""What every command shares: the session, options with one meaning everywhere, and printing."""

import gc
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from facedex.handle import Facedex

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One run of the program: the options that stand before the command."""

    options: Mapping[str, str | None]

    @contextmanager
    def facedex(self, **more: Any) -> Iterator["Facedex"]:
        """Facedex, opened with these options and closed again."""
        # Importing makes many objects and no garbage: looking for it costs a tenth of the time.
        gc.disable()
        from facedex.handle import open_facedex

        gc.freeze()
        gc.enable()
        with open_facedex({**self.options, **more}) as facedex:
            yield facedex


def with_json(command: Command) -> Command:
    """Add `--json`: one JSON object on standard output."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")(command)


def with_collection(command: Command) -> Command:
    """Add `-c/--collection`."""
    return click.option(
        "-c", "--collection", metavar="NAME", help="Which collection [default: default]."
    )(command)


def with_workers(command: Command) -> Command:
    """Add `--workers`."""
    return click.option(
        "--workers", type=click.IntRange(min=1), help="Processes that embed [default: cores]."
    )(command)


def with_where(*, required: bool = False) -> Callable[[Command], Command]:
    """Add `--where`."""
    return click.option(
        "-w",
        "--where",
        metavar="FILTER",
        required=required,
        help="""An SQL condition, e.g. "quality >= 0.6 AND person = 'Ann'".""",
    )


def emit(values: Mapping[str, Any], *, as_json: bool, text: str) -> None:
    """Print the result: as JSON, or as text for people."""
    click.echo(json.dumps(plain(values), allow_nan=False) if as_json else text)


def plain(value: Any) -> Any:
    """The same value in JSON's types; paths as text, times as ISO 8601."""
    match value:
        case Mapping():
            return {str(name): plain(one) for name, one in value.items()}
        case bytes() | Path():
            return os.fsdecode(value)
        case datetime():
            return value.isoformat()
        case str() | int() | float() | bool() | None:
            return value
        case Sequence() | frozenset() | set():
            return [plain(one) for one in value]
        case _:
            return str(value)


def note(message: str | None) -> None:
    """Say something to the user, beside the result; None: there is nothing to say."""
    if message is not None:
        click.echo(message, err=True)


def fail(message: str) -> None:
    """Say what went wrong."""
    click.echo(f"facedex: {message}", err=True)


def printable(value: str | bytes | Path) -> str:
    """A path as it can be shown: control characters and broken bytes are escaped."""
    from indexer.sources.pictures import printable as escaped

    return escaped(os.fsdecode(value))


def table(rows: Sequence[Sequence[str]], *, header: Sequence[str]) -> str:
    """Columns of text, aligned."""
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
