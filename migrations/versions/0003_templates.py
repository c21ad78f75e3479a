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
LOG = """
CREATE FUNCTION log_persons_of_new() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO person_change (collection_id, person_ids)
        SELECT collection_id, array_agg(DISTINCT person_id) FROM changed
        WHERE person_id IS NOT NULL
        GROUP BY collection_id, person_id >> 16;
    RETURN NULL;
END $$;
CREATE FUNCTION log_persons_of_moved() RETURNS trigger LANGUAGE plpgsql AS $$
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
CREATE FUNCTION log_persons_of_vectors() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO person_change (collection_id, person_ids)
        SELECT face.collection_id, array_agg(DISTINCT face.person_id)
        FROM changed JOIN face ON face.id = changed.face_id
        WHERE face.person_id IS NOT NULL
        GROUP BY face.collection_id, face.person_id >> 16;
    RETURN NULL;
END $$;

CREATE TRIGGER face_inserted_of_person AFTER INSERT ON face
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION log_persons_of_new();
CREATE TRIGGER face_updated_of_person AFTER UPDATE ON face
    REFERENCING OLD TABLE AS before NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION log_persons_of_moved();
CREATE TRIGGER face_deleted_of_person AFTER DELETE ON face
    REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION log_persons_of_new();
CREATE TRIGGER vector_inserted_of_person AFTER INSERT ON vector
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION log_persons_of_vectors();
CREATE TRIGGER vector_updated_of_person AFTER UPDATE ON vector
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION log_persons_of_vectors();
CREATE TRIGGER vector_deleted_of_person AFTER DELETE ON vector
    REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION log_persons_of_vectors();
CREATE TRIGGER persons_logged AFTER INSERT ON person_change
    REFERENCING NEW TABLE AS logged FOR EACH STATEMENT EXECUTE FUNCTION wake_readers();
"""
# Still fired in sessions with session_replication_role = replica, as replication and loaders use.
ALWAYS = {
    "face": ("face_inserted_of_person", "face_updated_of_person", "face_deleted_of_person"),
    "vector": (
        "vector_inserted_of_person",
        "vector_updated_of_person",
        "vector_deleted_of_person",
    ),
    "person_change": ("persons_logged",),
}


def upgrade() -> None:
    op.execute(TABLES)
    op.execute(LOG)
    for table, triggers in ALWAYS.items():
        for trigger in triggers:
            op.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {trigger}")
