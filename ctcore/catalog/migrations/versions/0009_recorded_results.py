"""recorded results"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "result",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("entity", sa.Integer(), nullable=False),
        sa.Column("analysis", sa.Text(), nullable=False),
        sa.Column("run", sa.Text(), nullable=False, comment="which of several; the empty text where there is one"),
        sa.Column("version", sa.Integer(), nullable=False, comment="1, 2, …; the highest one holds"),
        sa.Column("facts", sa.Text(), nullable=False, comment="canonical JSON of the columns"),
        sa.Column("reason", sa.Text(), nullable=False, comment="why it differs from the version before"),
        sa.Column("source", sa.Text(), nullable=False, comment="the sheet, or by name"),
        sa.Column("at", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["entity"], ["entity.seq"], ondelete="RESTRICT"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("entity", "analysis", "run", "version"),
    )


def downgrade() -> None:
    op.drop_table("result")
