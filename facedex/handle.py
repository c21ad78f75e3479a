"""An open Facedex: the one place where settings, store, models and index are put together.

The command line, the service and a user's own program all go through `Facedex`; its methods are
short and only connect the stages. Models and indexes are opened when they are first needed.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facedex.people import People
from indexer import erasing
from indexer.jobs import IngestRequest, queue_ingest
from retrieval.errors import (
    CalibrationMissingError,
    SpaceMismatchError,
    StoreConflictError,
    UnknownNameError,
)
from retrieval.fields import Fields
from retrieval.filters.tree import Filter
from retrieval.kernels.compiled import use_cache
from retrieval.reader import IndexStatus, Reader
from retrieval.settings import DEFAULT_COLLECTION, Configuration, Settings, configuration
from retrieval.store import audit, embedded, schema
from retrieval.store import collections as tenants
from retrieval.store.collections import Overview
from retrieval.store.database import Connection, Store, open_store, token
from retrieval.store.faces import (
    FaceRecord,
    count_faces,
    delete_faces,
    list_faces,
    parsed_value,
    persons_passing,
    update_faces,
)
from retrieval.store.holdings import Holding, Kind, holding_of, kinds_of
from retrieval.store.images import forget_refusals
from retrieval.values import (
    Collection,
    FaceId,
    FieldType,
    PersonId,
    Space,
    Token,
    UnitRows,
    Value,
)

# A question about faces loads no network, no codec of pictures, nothing of the write path: the
# methods that need those import them (0.7 s of 1.3 s).
if TYPE_CHECKING:
    from facedex.clustering import Clustering
    from facedex.curation import Curation
    from facedex.duplicates import Duplicates
    from facedex.evaluation import Evaluation
    from facedex.probes import Probes
    from facedex.protected import Protected
    from facedex.recognition import Recognition
    from facedex.searching import Found, FoundCaptions, Searching
    from facedex.words import Words
    from indexer.build import BuildReport
    from indexer.bulk.exporting import ExportReport
    from indexer.bulk.importing import ImportReport, ImportRequest
    from indexer.check import CheckReport, VerifyReport
    from indexer.enrolling import Portrait
    from indexer.pipeline import IngestReport, Tally
    from indexer.sources.listing import Listing
    from retrieval.models.choice import ModelChoice
    from retrieval.models.reader import FaceReader


@contextmanager
def open_facedex(options: Mapping[str, Any] | None = None, **more: Any) -> Iterator["Facedex"]:
    """Open Facedex with the settings of facedex.toml, the environment and these options.

    Starts the embedded PostgreSQL where no database address is set, and makes the tables in a
    database that has none.

    Args:
        options: settings by name (retrieval/settings.py); None counts as not given.
        more: the same, as keywords: `facedex.open(home="photos.facedex")`.
    """
    read = configuration({**(options or {}), **more})
    with open_store(database_address(read.settings)) as store:
        if schema.current(store) is None:
            schema.upgrade(store)
        schema.require_current(store)
        use_cache(read.settings.home)
        erasing.finish(store, home=read.settings.home)
        yield Facedex(configuration=read, store=store)


def database_address(settings: Settings) -> str:
    """The database's address; an embedded server is running when this returns."""
    if settings.database_url:
        return settings.database_url
    return embedded.ensure_running(settings.home).url


def upgrade_schema(options: Mapping[str, Any]) -> tuple[str | None, str]:
    """Bring the tables up to date; give the revisions before and after."""
    with open_store(database_address(configuration(options).settings)) as store:
        before = schema.current(store)
        schema.upgrade(store)
        return before, schema.head()


class Facedex:
    """One store, one home, one set of models. Methods mean the configured collection."""

    def __init__(self, *, configuration: Configuration, store: Store) -> None:
        self.configuration = configuration
        self.settings = configuration.settings
        self.store = store
        self._indexes: dict[tuple[int, int, Kind], Reader] = {}
        self._readers: dict[ModelChoice, FaceReader] = {}

    @cached_property
    def people(self) -> People:
        """The persons of the collection, and what can be said of them."""
        return People(self.store, home=self.settings.home, collection=self.collection)

    # --- collections and spaces --------------------------------------------------------------

    def collection(self, name: str | None = None) -> Collection:
        """The collection of that name, or UnknownNameError."""
        with self.store.reading() as connection:
            return tenants.collection_named(connection, name or self.settings.collection)

    def collection_if_any(self) -> Collection | None:
        """The configured collection; None where nobody named one and nothing was stored yet."""
        try:
            return self.collection()
        except UnknownNameError:
            if self.settings.collection != DEFAULT_COLLECTION:
                raise
            return None

    def overview(self) -> list[Overview]:
        """Every collection with its size."""
        with self.store.reading() as connection:
            return tenants.overview(connection)

    def create(self, name: str, *, demographics: bool) -> Token:
        """Make a collection; `demographics` lets age and gender be estimated."""
        with self.store.writing() as connection:
            made = tenants.create_collection(connection, name, demographics=demographics)
            audit.record(connection, "create", made)
            return token(connection)

    def drop(self, name: str) -> Token:
        """Delete a collection with everything in it, its snapshots too."""
        tenant = self.collection(name)
        with self.store.writing() as connection:
            tenants.drop_collection(connection, tenant)
            audit.record(connection, "drop", tenant)
            written = token(connection)
        shutil.rmtree(self.settings.home / "snapshots" / str(tenant.id), ignore_errors=True)
        for folder_of in (erasing.training_folder, erasing.likeness_folder):
            shutil.rmtree(folder_of(self.settings.home, tenant.id), ignore_errors=True)
        return written

    def declare(self, attributes: Mapping[str, FieldType], *, collection: str) -> None:
        """Declare attributes that filters may name."""
        with self.store.writing() as connection:
            tenant = tenants.collection_named(connection, collection)
            tenants.declare(connection, tenant, attributes)

    def fields(self, collection: Collection) -> Fields:
        """What a filter over this collection may name."""
        with self.store.reading() as connection:
            return tenants.fields_of(connection, collection)

    def spaces(self) -> list[Space]:
        """Every space that the store knows, with its licence."""
        with self.store.reading() as connection:
            return tenants.spaces(connection)

    def revision(self) -> str | None:
        """The revision of the database's tables."""
        return schema.current(self.store)

    # --- writing -----------------------------------------------------------------------------

    def ingest(
        self,
        paths: Sequence[str | Path],
        *,
        progress: Callable[["Tally"], None] = lambda _: None,
        **options: Any,
    ) -> "IngestReport":
        """Find the faces in pictures and store them; `options` are the fields of IngestRequest."""
        request = IngestRequest(paths=[os.fspath(path) for path in paths], **options)
        return self.run_ingest(request, progress=progress)

    def listing(self, request: IngestRequest) -> "Listing":
        """The pictures that a request names, read lazily."""
        from indexer.sources.listing import list_pictures
        from indexer.sources.pictures import SourceOptions

        return list_pictures(
            request.paths,
            options=SourceOptions(
                person_from_folder=request.person_from_folder,
                frames=request.frames,
                metadata=None if request.metadata is None else Path(request.metadata),
                source=request.source,
                origin=request.origin,
                allow_sensitive=request.allow_sensitive,
            ),
        )

    def run_ingest(
        self,
        request: IngestRequest,
        *,
        collection: str | None = None,
        progress: Callable[["Tally"], None] = lambda _: None,
    ) -> "IngestReport":
        """Carry out a request (indexer/pipeline.py says what it promises)."""
        from indexer.declaring import Declarations
        from indexer.originals import keep_original
        from indexer.pipeline import Ingest, IngestOptions

        listing = self.listing(request)
        with self.store.writing() as connection:
            tenant, space = self._tenant_of_models(connection, collection)
            tenants.declare(connection, tenant, listing.attribute_types)
            declared = tenants.declared(connection, tenant)
            if request.retry_refused:
                forget_refusals(connection, tenant)
        keep = partial(keep_original, home=self.settings.home)
        choice, text_space = self.words.storing(tenant)
        report = Ingest(
            self.store,
            collection=tenant,
            space=space,
            text_space=text_space,
            options=IngestOptions(
                choice=choice,
                framing=request.framing,
                workers=self.workers,
                keep=keep if request.copy_originals else None,
            ),
            declarations=Declarations(declared),
            revive=self._revive,
            progress=progress,
        ).run(listing)
        with self.store.writing() as connection:
            audit.record(connection, "ingest", tenant, images=report.images, faces=report.faces)
        self.words.fill_captions(tenant)
        self.match_protected(tenant)
        self.maintain_index(tenant)
        return report

    def queue_ingest(self, request: IngestRequest) -> int:
        """Leave a request to `facedex worker`; give the job's number."""
        with self.store.writing() as connection:
            tenant = tenants.collection_or_new(connection, self.settings.collection)
            return queue_ingest(connection, tenant, request.anchored())

    def import_file(
        self, request: "ImportRequest", *, progress: Callable[[int, int], None] = lambda *_: None
    ) -> "ImportReport":
        """Bring in ready-made vectors and attributes (indexer/bulk/importing.py)."""
        from indexer.bulk.importing import import_file

        report = import_file(self.store, request, progress=progress)
        tenant = self.collection(request.collection)
        with self.store.writing() as connection:
            audit.record(connection, "import", tenant, rows=report.rows)
        self.words.fill_captions(tenant)
        self.match_protected(tenant)
        self.maintain_index(tenant)
        return report

    def check_import(
        self, request: "ImportRequest", *, progress: Callable[[int, int], None] = lambda *_: None
    ) -> "ImportReport":
        """Report what an import would do and every problem of the file; write nothing."""
        from indexer.bulk.importing import check_file

        return check_file(self.store, request, progress=progress)

    def export_file(self, path: Path, *, where: str | None = None) -> "ExportReport":
        """Write vectors and attributes to Parquet, as `import_file` reads them."""
        from indexer.bulk.exporting import export_file

        tenant = self.collection()
        with self.store.reading() as connection:
            space = tenants.space_of(connection, tenant)
        filter_ = self._filter(where, tenant)
        report = export_file(self.store, path, collection=tenant, space=space, where=filter_)
        with self.store.writing() as connection:
            audit.record(connection, "export", tenant, rows=report.rows)
        return report

    def parsed_values(self, texts: Mapping[str, str]) -> dict[str, Value]:
        """Values as people type them, read by the type of their field; "" is None."""
        fields = self.fields(self.collection())
        return {name: parsed_value(name, written, fields) for name, written in texts.items()}

    def update(self, changes: Mapping[str, Value], *, where: str) -> tuple[int, Token]:
        """Set fields of the faces that pass the filter; give their number and the write's token."""
        tenant = self.collection()
        fields = self.fields(tenant)
        filter_ = self._parsed(where, fields)
        with self.store.writing() as connection:
            count = update_faces(
                connection, changes, collection=tenant, filter_=filter_, fields=fields
            )
            audit.record(connection, "update", tenant, faces=count)
            return count, token(connection)

    def delete(self, *, where: str) -> tuple[int, Token]:
        """Delete the faces that pass the filter; give their number and the write's token."""
        tenant = self.collection()
        filter_ = self._parsed(where, self.fields(tenant))
        with self.store.writing() as connection:
            count = delete_faces(connection, collection=tenant, filter_=filter_)
            audit.record(connection, "delete", tenant, faces=count)
            return count, token(connection)

    # --- reading -----------------------------------------------------------------------------

    def count(self, *, where: str | None = None, collection: str | None = None) -> int:
        """How many faces pass the filter."""
        tenant = self.collection(collection)
        filter_ = self._filter(where, tenant)
        with self.store.reading() as connection:
            return count_faces(connection, collection=tenant, filter_=filter_)

    def faces(
        self, *, where: str | None = None, after: int = 0, limit: int = 100
    ) -> list[FaceRecord]:
        """Records of the faces that pass the filter, by id, those above `after`."""
        tenant = self.collection()
        filter_ = self._filter(where, tenant)
        with self.store.reading() as connection:
            return list_faces(
                connection, collection=tenant, filter_=filter_, after=FaceId(after), limit=limit
            )

    def portrait(self, path: str | Path) -> "Portrait":
        """A picture with its faces, of which the largest central one is meant."""
        return self.probes.portrait(path)

    def probe_of_picture(self, path: str | Path) -> UnitRows:
        """The vector of a picture's largest central face, (1, d)."""
        return self.probes.of_picture(path)

    def probe_of_face(self, face: int) -> UnitRows:
        """The stored vector of a face, (1, d)."""
        return self.probes.of_face(face)

    def search(self, probes: UnitRows | None = None, **asked: Any) -> "Found":
        """The faces that fit best: like a face, a sentence, a look, in any combination.

        Args:
            probes: (n, d) rows of unit length, in the collection's space: who is meant.
            asked: the other fields of `Asking` (facedex/searching.py): text, where, count, ...
        """
        from facedex.searching import Asking

        return self.searching.faces(Asking(face=probes, **asked))

    def search_captions(self, **asked: Any) -> "FoundCaptions":
        """The captions that fit a sentence or a look best; `asked` are fields of `Asking`."""
        from facedex.searching import Asking

        return self.searching.captions(Asking(**asked))

    @cached_property
    def probes(self) -> "Probes":
        """What questions are asked with: vectors of pictures, of stored faces, of files."""
        from facedex.probes import Probes

        return Probes(self)

    @cached_property
    def searching(self) -> "Searching":
        """Finding faces and captions."""
        from facedex.searching import Searching

        return Searching(self)

    @cached_property
    def recognition(self) -> "Recognition":
        """Verify, identify, enroll."""
        from facedex.recognition import Recognition

        return Recognition(self)

    @cached_property
    def evaluation(self) -> "Evaluation":
        """How often recognition errs on the labelled faces of the collection."""
        from facedex.evaluation import Evaluation

        return Evaluation(self)

    @cached_property
    def clustering(self) -> "Clustering":
        """Which faces belong together."""
        from facedex.clustering import Clustering

        return Clustering(self)

    @cached_property
    def curation(self) -> "Curation":
        """Data sets compared, cut into parts, and cleaned."""
        from facedex.curation import Curation

        return Curation(self)

    @cached_property
    def duplicates(self) -> "Duplicates":
        """Copies of pictures, of shots of a face, and persons that are one."""
        from facedex.duplicates import Duplicates

        return Duplicates(self)

    @cached_property
    def protected(self) -> "Protected":
        """The protected list of the collection."""
        from facedex.protected import Protected

        return Protected(self)

    @cached_property
    def words(self) -> "Words":
        """The face-text space of the collection, and its model."""
        from facedex.words import Words

        return Words(self)

    # --- index -------------------------------------------------------------------------------

    def index(self, collection: Collection) -> Reader:
        """The reader of the collection's faces, opened once."""
        return self.opened(self.holding(collection, Kind.FACES))

    def index_kinds(self) -> tuple[Kind, ...]:
        """The kinds of index that the collection has."""
        return kinds_of(self.collection())

    def build_index(self, kind: Kind = Kind.FACES) -> "BuildReport":
        """Build a snapshot of all that an index of that kind holds, and publish it."""
        from indexer.build import build

        holding = self.holding(self.collection(), kind)
        asked = self.searching.questions_like(holding)
        return build(holding, home=self.settings.home, asked=asked)

    def index_status(self, kind: Kind = Kind.FACES) -> IndexStatus:
        """What readers see now."""
        index = self.opened(self.holding(self.collection(), kind))
        index.refresh()
        return index.status()

    def verify_index(self, kind: Kind = Kind.FACES) -> "VerifyReport":
        """Hash every file of the current snapshot."""
        from indexer.check import verify_current

        return verify_current(self.holding(self.collection(), kind), home=self.settings.home)

    def check(self, kind: Kind = Kind.FACES) -> "CheckReport":
        """Compare the index with the store, both ways."""
        from indexer.check import check

        return check(self.opened(self.holding(self.collection(), kind)))

    def warm(self) -> float:
        """Compile what searches need, unless it lies in the home already; give the seconds."""
        from retrieval.warming import warm

        return warm()

    # --- models ------------------------------------------------------------------------------

    @property
    def workers(self) -> int:
        """How many processes embed."""
        return self.settings.workers or os.cpu_count() or 1

    def model_choice(self, collection: Collection | None = None) -> "ModelChoice":
        """Which models read pictures for a collection."""
        from retrieval.models.choice import ModelChoice

        return ModelChoice(
            name=self.settings.models,
            use=self.settings.use,
            demographics=collection is not None and collection.demographics,
        )

    def space_of_pictures(self) -> Space:
        """The space that the configured models read pictures into; its id means nothing."""
        from retrieval.models.choice import space_of_models

        return space_of_models(self.model_choice())

    def licence_notice(self) -> str:
        """What the owner of the identity model's weights allows."""
        space = self.space_of_pictures()
        return f"identity model {space.name}: {space.licence}"

    # --- inside ------------------------------------------------------------------------------

    def _filter(self, where: str | None, collection: Collection) -> Filter | None:
        return None if where is None else self._parsed(where, self.fields(collection))

    def _parsed(self, where: str, fields: Fields) -> Filter:
        from retrieval.filters.parse import parse

        return parse(where, fields)

    def reader_of(self, collection: Collection | None) -> "FaceReader":
        """The models that read pictures into the collection's space; None: into their own.

        Raises:
            SpaceMismatchError: the collection's vectors are of another model, or from outside.
        """
        from retrieval.models.choice import load_models

        if collection is not None and collection.space_id is not None:
            self._require_models_of(collection)
        choice = self.model_choice(collection)
        if choice not in self._readers:
            self._readers[choice] = load_models(choice)
        return self._readers[choice]

    def place_for_pictures(self) -> tuple[Collection, Space]:
        """The collection and the space that new pictures go to, made where they are not there."""
        with self.store.writing() as connection:
            return self._tenant_of_models(connection, None)

    def persons_passing(self, where: str) -> set[PersonId]:
        """The persons with a captured face that passes the filter."""
        tenant = self.collection()
        filter_ = self._parsed(where, self.fields(tenant))
        with self.store.reading() as connection:
            return persons_passing(connection, collection=tenant, filter_=filter_)

    def _tenant_of_models(
        self, connection: Connection, name: str | None
    ) -> tuple[Collection, Space]:
        """The collection for new pictures and the space of the models that read them."""
        from retrieval.models.choice import space_of_models

        tenant = tenants.collection_or_new(connection, name or self.settings.collection)
        space = tenants.space_or_new(connection, space_of_models(self.model_choice(tenant)))
        tenant = tenants.search_in(connection, tenant, space)
        self._require_same_space(connection, tenant, space)
        return tenant, space

    def _require_models_of(self, collection: Collection) -> None:
        """Raise SpaceMismatchError where the models' vectors mean nothing in the collection."""
        from retrieval.models.choice import space_of_models

        with self.store.reading() as connection:
            models = space_of_models(self.model_choice(collection))
            self._require_same_space(connection, collection, models)

    def _require_same_space(
        self, connection: Connection, collection: Collection, models: Space
    ) -> None:
        stored = tenants.space_of(connection, collection)
        if (stored.name, stored.model_sha256) != (models.name, models.model_sha256):
            raise SpaceMismatchError(
                f"collection '{collection.name}' is searched in space '{stored.name}', and pictures"
                f" are read into '{models.name}': use --models, or another collection"
            )

    def holding(self, collection: Collection, kind: Kind) -> Holding:
        """What an index of that kind holds of a collection."""
        return holding_of(self.store, collection, kind)

    def opened(self, holding: Holding) -> Reader:
        """The reader of an index, opened once."""
        key = (holding.collection.id, holding.space.id, holding.kind)
        if key not in self._indexes:
            self._indexes[key] = Reader.open(holding, home=self.settings.home)
        return self._indexes[key]

    def match_protected(self, collection: Collection) -> None:
        """Match what came in with the collection's protected list, where there is one.

        Whoever writes faces is told nothing of it, errors included: what is not matched now is
        matched later, since the list's cursor stays where it is.
        """
        from indexer.protecting import follow

        with suppress(CalibrationMissingError, StoreConflictError):
            follow(self.store, collection)

    def maintain_index(self, collection: Collection) -> None:
        """Build snapshots where so much changed that readers would feel it."""
        from indexer.build import build, should_build

        present = self.collection(collection.name)
        if present.space_id is None:
            return
        for kind in kinds_of(present):
            holding = self.holding(present, kind)
            index = self.opened(holding)
            index.refresh()
            if should_build(index.status()):
                # Whoever builds at this moment does it for us; what it misses is in the delta.
                with suppress(StoreConflictError):
                    asked = self.searching.questions_like(holding)
                    build(holding, home=self.settings.home, like=index.coding, asked=asked)

    def _revive(self) -> None:
        """Bring an embedded server back that was killed; any other comes back by itself."""
        if not self.settings.database_url:
            embedded.ensure_running(self.settings.home)
