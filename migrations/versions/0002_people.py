"""Persons as facts: merged, rejected, linked; every change an event; the ledger of erasing."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TABLES = """
-- A merged person stays, so that undo is exact and its name goes on to name the survivor. It points
-- to the survivor itself, never to another merged person, and owns nothing.
ALTER TABLE person ADD COLUMN merged_into bigint REFERENCES person CHECK (merged_into <> id);
CREATE INDEX person_merged_into ON person (merged_into) WHERE merged_into IS NOT NULL;
CREATE TABLE rejection (
    face_id bigint NOT NULL REFERENCES face ON DELETE CASCADE,
    person_id bigint NOT NULL REFERENCES person ON DELETE CASCADE,  -- whose face this is not
    PRIMARY KEY (face_id, person_id)
);
CREATE INDEX rejection_person ON rejection (person_id);
CREATE TABLE person_link (
    one_id bigint NOT NULL REFERENCES person ON DELETE CASCADE,
    two_id bigint NOT NULL REFERENCES person ON DELETE CASCADE CHECK (one_id < two_id),
    PRIMARY KEY (one_id, two_id)
);
CREATE INDEX person_link_two ON person_link (two_id);
CREATE TABLE person_event (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    collection_id bigint NOT NULL REFERENCES collection ON DELETE CASCADE,
    at timestamptz NOT NULL DEFAULT now(),
    actor text NOT NULL,
    kind text NOT NULL,
    undoes bigint REFERENCES person_event ON DELETE CASCADE,
    -- Every person and face that `detail` names: erasing finds an event by them.
    persons bigint[] NOT NULL,
    faces bigint[] NOT NULL,
    detail jsonb NOT NULL  -- the rows before and after: opaque ids and times, never names
);
CREATE INDEX person_event_collection ON person_event (collection_id, id);
CREATE INDEX person_event_undoes ON person_event (undoes) WHERE undoes IS NOT NULL;
CREATE INDEX person_event_persons ON person_event USING gin (persons) WITH (fastupdate = off);
CREATE INDEX person_event_faces ON person_event USING gin (faces) WITH (fastupdate = off);
-- The names that undo needs; they go with their event.
CREATE TABLE person_event_name (
    event_id bigint NOT NULL REFERENCES person_event ON DELETE CASCADE,
    person_id bigint NOT NULL,
    before text COLLATE "C",
    after text COLLATE "C",
    PRIMARY KEY (event_id, person_id)
);
CREATE TABLE erasure (
    id text PRIMARY KEY CHECK (id ~ '^[0-9a-f]{32}$'),
    collection_id bigint NOT NULL,  -- kept after the collection is gone, as all of this
    at timestamptz NOT NULL DEFAULT now(),
    actor text NOT NULL,
    cleaned_at timestamptz,  -- NULL: index snapshots may still hold the faces
    erased jsonb NOT NULL  -- persons, faces, images: numbers with their times of creation
);
CREATE INDEX erasure_unclean ON erasure (collection_id) WHERE cleaned_at IS NULL;
"""


def upgrade() -> None:
    op.execute(TABLES)
