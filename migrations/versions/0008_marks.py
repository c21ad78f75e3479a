"""Which faces a run of `dedup --apply` marked, and which persons it linked: what its undo needs."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE marking (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    collection_id bigint NOT NULL REFERENCES collection ON DELETE CASCADE,
    at timestamptz NOT NULL DEFAULT now(),
    actor text NOT NULL,
    level text NOT NULL CHECK (level IN ('image', 'face', 'person', 'track')),
    tag text COLLATE "C",  -- NULL: persons were linked
    faces bigint[] NOT NULL DEFAULT '{}',  -- that had not the tag before
    opened bigint[] NOT NULL DEFAULT '{}',  -- whose tags were NULL before
    ones bigint[] NOT NULL DEFAULT '{}',  -- persons that were not linked before,
    twos bigint[] NOT NULL DEFAULT '{}',  -- each with the person at the same place
    undone_at timestamptz
);
CREATE INDEX marking_collection ON marking (collection_id);
"""


def upgrade() -> None:
    op.execute(TABLES)
