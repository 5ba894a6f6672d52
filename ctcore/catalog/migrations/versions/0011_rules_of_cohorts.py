"""rules of cohorts"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "cohort_rule",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("cohort", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False, comment="digest of the rule; empty: no longer declared"),
        sa.Column("rule", sa.Text(), nullable=False, comment="canonical JSON of its normal form"),
        sa.Column("words", sa.Text(), nullable=False),
        sa.Column(
            "members", sa.Text(), nullable=False, comment="canonical JSON: how many of each level there were then"
        ),
        sa.Column("at", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    # not in a batch: SQLite would copy the whole table for it
    column = sa.Column("rule", sa.Text(), nullable=True, comment="version of the cohort's rule that chose its members")
    op.add_column("materialization", column)


def downgrade() -> None:
    with op.batch_alter_table("materialization", schema=None) as batch_op:
        batch_op.drop_column("rule")
    op.drop_table("cohort_rule")
