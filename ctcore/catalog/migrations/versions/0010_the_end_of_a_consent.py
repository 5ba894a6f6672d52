"""the end of a consent"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "purge",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("patient", sa.Text(), nullable=False),
        sa.Column("at", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("raw", sa.Boolean(), nullable=False, comment="raw files inside the project go too"),
        sa.Column("ended_at", sa.Text(), nullable=True, comment="when the last file was gone; NULL: files may be left"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "tombstone",
        sa.Column("materialization", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("purge", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["materialization"], ["materialization.id"]),
        sa.ForeignKeyConstraint(["purge"], ["purge.id"]),
        sa.PrimaryKeyConstraint("materialization"),
    )
    op.create_index("tombstone_purge", "tombstone", ["purge"], unique=False)
    added = sa.Column(
        "purged", sa.Integer(), nullable=True, comment="the purge that took its attributes away; NULL: none"
    )
    op.add_column("entity", added)


def downgrade() -> None:
    op.drop_column("entity", "purged")
    op.drop_index("tombstone_purge", "tombstone")
    op.drop_table("tombstone")
    op.drop_table("purge")
