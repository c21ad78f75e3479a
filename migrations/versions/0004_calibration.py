"""Calibrations that collections measured on their own faces."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TABLE = """
CREATE TABLE calibration (
    collection_id bigint NOT NULL REFERENCES collection ON DELETE CASCADE,
    space_id bigint NOT NULL REFERENCES space,
    content jsonb NOT NULL,  -- how often strangers reach a similarity: counts, never vectors
    made_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (collection_id, space_id)
);
"""


def upgrade() -> None:
    op.execute(TABLE)
