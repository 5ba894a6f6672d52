"""what a call saw"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_LOOKED_AT = ("digest_memory", "file", "output")
_STORY = {
    "actor": "who asked for the call",
    "host": "where it ran",
    "git": "commit of the step's folder; + behind it: with changes that are in none",
    "undeclared": "canonical JSON: what it read that the step does not declare; NULL: nobody watched",
}


def upgrade() -> None:
    # not in a batch: SQLite would copy the whole table for it
    for table in _LOOKED_AT:
        comment = "0: not known, so it is read again"
        op.add_column(
            table, sa.Column("ctime_ns", sa.BigInteger(), server_default="0", nullable=False, comment=comment)
        )
    for name, comment in _STORY.items():
        op.add_column("materialization", sa.Column(name, sa.Text(), nullable=True, comment=comment))
    op.create_table(
        "reproduction",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("materialization", sa.Integer(), nullable=False, comment="what was made again"),
        sa.Column("at", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=True),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("data_version", sa.Text(), nullable=False, comment="of the content that came this time"),
        sa.Column(
            "differs", sa.Text(), nullable=False, comment="canonical JSON: the files that differ; []: reproduced"
        ),
        sa.ForeignKeyConstraint(["materialization"], ["materialization.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("reproduction_materialization", "reproduction", ["materialization"])


def downgrade() -> None:
    op.drop_table("reproduction")
    for name in reversed(_STORY):
        with op.batch_alter_table("materialization", schema=None) as batch_op:
            batch_op.drop_column(name)
    for table in reversed(_LOOKED_AT):
        with op.batch_alter_table(table, schema=None) as batch_op:
            batch_op.drop_column("ctime_ns")
