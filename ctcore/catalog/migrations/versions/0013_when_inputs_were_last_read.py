"""when inputs were last read"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_INPUTS = {"file": "when it was registered", "reference": "when it was recorded"}


def upgrade() -> None:
    # not in a batch: SQLite would copy the whole table for it
    for table, else_ in _INPUTS.items():
        comment = f"when all its bytes were last read; NULL: {else_}"
        op.add_column(table, sa.Column("checked_at", sa.Text(), nullable=True, comment=comment))


def downgrade() -> None:
    for table in reversed(_INPUTS):
        with op.batch_alter_table(table, schema=None) as batch_op:
            batch_op.drop_column("checked_at")
