"""The log of persons whose template may have changed, and snapshots of templates."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# Like face_change: which persons a transaction touched, never how. A template is made of the faces
# that a person has, so nothing is stored of it that could differ from them.
TABLES = """
CREATE TABLE person_change (
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    collection_id bigint NOT NULL,
    person_ids bigint[] NOT NULL
);
CREATE INDEX person_change_cursor ON person_change (collection_id, xid);
ALTER TABLE snapshot ADD COLUMN kind text NOT NULL DEFAULT 'faces'
    CHECK (kind IN ('faces', 'persons'));
-- Persons that were there before the log began.
INSERT INTO person_change (collection_id, person_ids)
    SELECT collection_id, array_agg(id) FROM person GROUP BY collection_id, id >> 16;
"""
# Faces and vectors that come and go are logged with their persons by the statement that looks at
# them anyway; a face that changes may leave one person for another.
LOG = """
CREATE OR REPLACE FUNCTION log_faces() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO face_change (collection_id, face_ids)
        SELECT collection_id, array_agg(id) FROM changed GROUP BY collection_id, id >> 16;
    IF TG_OP <> 'UPDATE' THEN
        INSERT INTO person_change (collection_id, person_ids)
            SELECT collection_id, array_agg(DISTINCT person_id) FROM changed
            WHERE person_id IS NOT NULL
            GROUP BY collection_id, person_id >> 16;
    END IF;
    RETURN NULL;
END $$;
CREATE OR REPLACE FUNCTION log_vectors() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- Vectors that went with their face find no face here; its own delete was logged.
    WITH touched AS MATERIALIZED (
        SELECT face.collection_id, face.id, face.person_id
        FROM changed JOIN face ON face.id = changed.face_id
    ), faces AS (
        INSERT INTO face_change (collection_id, face_ids)
            SELECT collection_id, array_agg(id) FROM touched GROUP BY collection_id, id >> 16
    )
    INSERT INTO person_change (collection_id, person_ids)
        SELECT collection_id, array_agg(DISTINCT person_id) FROM touched
        WHERE person_id IS NOT NULL
        GROUP BY collection_id, person_id >> 16;
    RETURN NULL;
END $$;
CREATE FUNCTION log_persons() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO person_change (collection_id, person_ids)
        SELECT collection_id, array_agg(DISTINCT person_id)
        FROM (
            SELECT before.collection_id, either.person_id
            FROM before
                JOIN changed USING (id)
                CROSS JOIN LATERAL (VALUES (before.person_id), (changed.person_id))
                    AS either (person_id)
            WHERE (before.person_id, before.quality, before.origin)
                IS DISTINCT FROM (changed.person_id, changed.quality, changed.origin)
        ) AS touched
        WHERE person_id IS NOT NULL
        GROUP BY collection_id, person_id >> 16;
    RETURN NULL;
END $$;

CREATE TRIGGER face_changed_person AFTER UPDATE ON face
    REFERENCING OLD TABLE AS before NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION log_persons();
CREATE TRIGGER persons_logged AFTER INSERT ON person_change
    REFERENCING NEW TABLE AS logged FOR EACH STATEMENT EXECUTE FUNCTION wake_readers();
"""
# Still fired in sessions with session_replication_role = replica, as replication and loaders use.
ALWAYS = {"face": "face_changed_person", "person_change": "persons_logged"}


def upgrade() -> None:
    op.execute(TABLES)
    op.execute(LOG)
    for table, trigger in ALWAYS.items():
        op.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {trigger}")
