"""Protected lists: in a schema of their own, which nobody but its owner may look into."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# Nothing of this lies in the tables that everybody reads, not even a number out of their
# sequences: what ordinary questions see is the same with and without a member.
TABLES = """
CREATE SCHEMA protected;
CREATE TABLE protected.list (
    collection_id bigint PRIMARY KEY REFERENCES public.collection ON DELETE CASCADE,
    purpose text NOT NULL CHECK (purpose ~ '[^[:space:]]'),
    basis text NOT NULL CHECK (basis ~ '[^[:space:]]'),
    fpir double precision NOT NULL CHECK (fpir > 0 AND fpir <= 0.01),
    -- What was matched, and on which server. NULL: nothing yet, or persons came since.
    cursor pg_snapshot,
    system_identifier text,
    revision bigint NOT NULL DEFAULT 0,  -- goes up with the cursor and with every change of persons
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE protected.person (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    collection_id bigint NOT NULL REFERENCES protected.list ON DELETE CASCADE,
    name text COLLATE "C" NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (collection_id, name)
);
CREATE TABLE protected.picture (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    person_id bigint NOT NULL REFERENCES protected.person ON DELETE CASCADE,
    space_id bigint NOT NULL REFERENCES public.space,
    sha256 bytea NOT NULL CHECK (octet_length(sha256) = 32),
    path bytea NOT NULL,  -- as the file system spells it, which need not be UTF-8
    quality double precision NOT NULL,
    data bytea NOT NULL,  -- little-endian float16, unit length
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (person_id, space_id, sha256)
);
ALTER TABLE protected.picture ALTER COLUMN data SET STORAGE EXTERNAL;
CREATE TABLE protected.alert (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    person_id bigint NOT NULL REFERENCES protected.person ON DELETE CASCADE,
    -- NULL: the face was deleted. No foreign key: it would cost each deleted face 2.5 us.
    face_id bigint,
    vector_changed xid8 NOT NULL,  -- which vector of the face: each is told once
    similarity double precision NOT NULL,
    threshold double precision NOT NULL,
    poor boolean NOT NULL,  -- the face lies below the quality floor
    closest bigint[] NOT NULL,  -- pictures of the person, the most similar first
    closest_similarity double precision[] NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    seen_at timestamptz,
    seen_by text,
    UNIQUE (face_id, person_id, vector_changed)
);
CREATE INDEX alert_person ON protected.alert (person_id);
CREATE TABLE protected.audit (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    actor text NOT NULL,
    action text NOT NULL,
    collection_id bigint NOT NULL,  -- kept after the list is gone
    detail jsonb NOT NULL  -- counts and opaque ids, never names, pictures or vectors
);
"""
# An alert outlives its face: deleting a picture must not hide that it was there. Whoever deletes
# has no right to alerts; the function has its owner's.
FORGETTING = """
CREATE FUNCTION protected.forget_faces() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM protected.alert) THEN
        UPDATE protected.alert SET face_id = NULL FROM gone WHERE alert.face_id = gone.id;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER face_deleted_of_alert AFTER DELETE ON public.face
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION protected.forget_faces();
ALTER TABLE public.face ENABLE ALWAYS TRIGGER face_deleted_of_alert;
"""
# A new schema is closed anyhow, unless somebody's default privileges opened it.
CLOSED = """
REVOKE ALL ON SCHEMA protected FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA protected FROM PUBLIC;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA protected FROM PUBLIC;
REVOKE ALL ON FUNCTION protected.forget_faces FROM PUBLIC;
"""


def upgrade() -> None:
    op.execute(TABLES)
    op.execute(FORGETTING)
    op.execute(CLOSED)
