"""The tables as SQLAlchemy sees them. `migrations/` makes them; a test compares the two."""

from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Column,
    Double,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
)
from sqlalchemy.dialects.postgresql import JSONB, REAL, TIMESTAMP, TSVECTOR
from sqlalchemy.types import UserDefinedType


class Xid8(UserDefinedType[str]):
    """The number of a transaction."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """The name of the type in SQL."""
        return "xid8"


class PgSnapshot(UserDefinedType[str]):
    """Which transactions a reader sees."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """The name of the type in SQL."""
        return "pg_snapshot"


metadata = MetaData()
_TIME = TIMESTAMP(timezone=True)

space = Table(
    "space",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("name", Text),
    Column("dimension", Integer),
    Column("model_sha256", Text),
    Column("licence", Text),
    Column("commercial", Boolean),
    Column("created_at", _TIME),
)
collection = Table(
    "collection",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("name", Text),
    Column("space_id", BigInteger),
    Column("demographics", Boolean),
    Column("log_begins", Xid8),
    Column("created_at", _TIME),
    Column("text_space_id", BigInteger),
)
attribute = Table(
    "attribute",
    metadata,
    Column("collection_id", BigInteger, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("type", Text),
)
person = Table(
    "person",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("collection_id", BigInteger),
    Column("name", Text),
    Column("created_at", _TIME),
    Column("merged_into", BigInteger),
)
rejection = Table(
    "rejection",
    metadata,
    Column("face_id", BigInteger, primary_key=True),
    Column("person_id", BigInteger, primary_key=True),
)
person_link = Table(
    "person_link",
    metadata,
    Column("one_id", BigInteger, primary_key=True),
    Column("two_id", BigInteger, primary_key=True),
)
person_event = Table(
    "person_event",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("collection_id", BigInteger),
    Column("at", _TIME),
    Column("actor", Text),
    Column("kind", Text),
    Column("undoes", BigInteger),
    Column("persons", ARRAY(BigInteger)),
    Column("faces", ARRAY(BigInteger)),
    Column("detail", JSONB),
)
person_event_name = Table(
    "person_event_name",
    metadata,
    Column("event_id", BigInteger, primary_key=True),
    Column("person_id", BigInteger, primary_key=True),
    Column("before", Text),
    Column("after", Text),
)
clustering = Table(
    "clustering",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("collection_id", BigInteger),
    Column("space_id", BigInteger),
    Column("at", _TIME),
    Column("thresholds", JSONB),
)
proposal = Table(
    "proposal",
    metadata,
    Column("face_id", BigInteger, primary_key=True),
    Column("clustering_id", BigInteger),
    Column("person_id", BigInteger),
    Column("confidence", REAL),
)
erasure = Table(
    "erasure",
    metadata,
    Column("id", Text, primary_key=True),
    Column("collection_id", BigInteger),
    Column("at", _TIME),
    Column("actor", Text),
    Column("cleaned_at", _TIME),
    Column("erased", JSONB),
)
image = Table(
    "image",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("collection_id", BigInteger),
    Column("sha256", LargeBinary),
    Column("path", LargeBinary),
    Column("member", Text),
    Column("bytes", BigInteger),
    Column("width", Integer),
    Column("height", Integer),
    Column("format", Text),
    Column("captured_at_assumed_utc", Boolean),
    Column("created_at", _TIME),
)
refusal = Table(
    "refusal",
    metadata,
    Column("collection_id", BigInteger, primary_key=True),
    Column("sha256", LargeBinary, primary_key=True),
    Column("path", LargeBinary),
    Column("member", Text),
    Column("reason", Text),
    Column("created_at", _TIME),
)
face = Table(
    "face",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("collection_id", BigInteger),
    Column("image_id", BigInteger),
    Column("person_id", BigInteger),
    Column("external_id", Text),
    Column("box", ARRAY(REAL)),
    Column("landmarks", ARRAY(REAL)),
    Column("quality", Double),
    Column("sharpness", Double),
    Column("detector_score", Double),
    Column("size_px", Double),
    Column("yaw", Double),
    Column("pitch", Double),
    Column("roll", Double),
    Column("age", Double),
    Column("gender", Text),
    Column("source", Text),
    Column("origin", Text),
    Column("captured_at", _TIME),
    Column("track", Text),
    Column("frame", BigInteger),
    Column("tags", ARRAY(Text)),
    Column("attributes", JSONB),
    Column("provenance", JSONB),
    Column("created_at", _TIME),
)
vector = Table(
    "vector",
    metadata,
    Column("face_id", BigInteger, primary_key=True),
    Column("space_id", BigInteger, primary_key=True),
    Column("data", LargeBinary),
    Column("norm", REAL),
    Column("changed", Xid8),
)
caption = Table(
    "caption",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("collection_id", BigInteger),
    Column("face_id", BigInteger),
    Column("text", Text),
    Column("provider", Text),
    Column("document", TSVECTOR),
    Column("created_at", _TIME),
)
caption_vector = Table(
    "caption_vector",
    metadata,
    Column("caption_id", BigInteger, primary_key=True),
    Column("space_id", BigInteger, primary_key=True),
    Column("data", LargeBinary),
    Column("changed", Xid8),
)
marking = Table(
    "marking",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("collection_id", BigInteger),
    Column("at", _TIME),
    Column("actor", Text),
    Column("level", Text),
    Column("tag", Text),
    Column("faces", ARRAY(BigInteger)),
    Column("opened", ARRAY(BigInteger)),
    Column("ones", ARRAY(BigInteger)),
    Column("twos", ARRAY(BigInteger)),
    Column("undone_at", _TIME),
)
