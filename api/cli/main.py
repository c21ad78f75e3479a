"""`facedex`: which command lives in which module, and what an error becomes."""

import importlib
import sys
from typing import Final

import click

from api.cli.output import Session, fail
from retrieval.errors import FacedexError, UsageError

DONE, ANSWER_IS_NO, WRONG_USAGE, SYSTEM_FAILED = 0, 1, 2, 3

# command -> module, one-line help (repeated here so that `--help` imports no command)
COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "init": ("setup", "Make FACEDEX_HOME, the database and its tables."),
    "ingest": ("ingest", "Find the faces in pictures and store them."),
    "import": ("transfer", "Bring in ready-made vectors and attributes."),
    "export": ("transfer", "Write vectors and attributes to Parquet."),
    "search": ("search", "Find the faces that look like one."),
    "verify": ("recognition", "Say whether two faces are of one person."),
    "identify": ("recognition", "Say who a face may be."),
    "enroll": ("recognition", "Give pictures to a person."),
    "list": ("faces", "List faces."),
    "count": ("faces", "Count faces."),
    "update": ("faces", "Set attributes of faces."),
    "delete": ("faces", "Delete faces."),
    "person": ("person", "Name people, correct what was said of them, take it back."),
    "protected": ("protected", "Notice persons in whatever comes in, out of others' sight."),
    "collection": ("collections", "List, create, drop collections; declare attributes."),
    "space": ("space", "List spaces with their licences; let sentences find faces."),
    "caption": ("caption", "Train a face-text model, and let it tell attributes of faces."),
    "index": ("index", "Build, show and verify the index."),
    "check": ("index", "Compare store and index."),
    "cluster": ("cluster", "Propose who is the same person."),
    "evaluate": ("evaluate", "Measure error rates on faces whose person is known."),
    "dedup": ("dedup", "Find what is there twice, and mark it."),
    "curate": ("curation", "Let declared rules choose the faces of a data set."),
    "labels": ("curation", "List the labels that may be wrong."),
    "overlap": ("curation", "Say what two collections share."),
    "partition": ("curation", "Cut a collection so that no identity is in two parts."),
    "sample": ("separability", "Choose faces no two of which are alike."),
    "bench": ("bench", "Compare engines for filtered search."),
    "worker": ("jobs", "Carry out queued jobs."),
    "jobs": ("jobs", "List queued jobs."),
    "demo": ("demo", "Show what Facedex does, on six faces."),
    "doctor": ("setup", "Examine this installation."),
    "config": ("setup", "Show the settings and where each came from."),
    "upgrade": ("setup", "Bring the database's tables up to date."),
    "stop": ("setup", "Stop the embedded PostgreSQL."),
}


class Commands(click.Group):
    """A group that imports the module of a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """All commands, in the order in which a newcomer meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command of that name."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"api.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, f"{cmd_name.replace('-', '_')}_command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The list of commands, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.command(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Begin with:  facedex demo   or   facedex ingest photos/",
)
@click.option("--home", metavar="DIR", help="Folder of database and index [default: ./.facedex].")
@click.option(
    "--database-url", metavar="URL", help="A PostgreSQL server instead of the embedded one."
)
@click.option("--use", metavar="USE", help="research (default) or commercial.")
@click.option(
    "--models", metavar="NAME", help="arcface, sface, or a folder with an insightface pack."
)
@click.version_option(package_name="facedex")
@click.pass_context
def cli(ctx: click.Context, /, **options: str | None) -> None:
    """Facedex: a vector search and face-retrieval database.

    Pictures become faces: boxes, landmarks, attributes, vectors. Then ask: who is this, which
    faces look alike, under any filter.
    """
    ctx.obj = Session(options=options)


def main() -> None:
    """Run the command and end the process with its status."""
    try:
        status = cli.main(prog_name="facedex", standalone_mode=False)
        sys.exit(status if isinstance(status, int) else DONE)
    except click.exceptions.Abort:
        fail("interrupted")
        sys.exit(SYSTEM_FAILED)
    except click.ClickException as error:
        error.show()
        sys.exit(WRONG_USAGE)
    except UsageError as error:
        fail(str(error))
        sys.exit(WRONG_USAGE)
    except FacedexError as error:
        fail(str(error))
        sys.exit(SYSTEM_FAILED)
    except BrokenPipeError:
        # The reader of our output (head, less) has seen enough.
        sys.stderr.close()
        sys.exit(DONE)
    except OSError as error:
        fail(f"{error.strerror or error}: {error.filename}" if error.filename else str(error))
        sys.exit(SYSTEM_FAILED)
