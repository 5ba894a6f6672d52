"""versions of references"""

import json

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    table = op.create_table(
        "reference_version",
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.Text(), nullable=False, comment="since when; until the next one of its key"),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True, comment="why, in the actor's words; NULL: it was seen to be so"),
        sa.PrimaryKeyConstraint("number"),
    )
    told = sa.text("SELECT at, actor, body FROM event WHERE kind = 'reference' ORDER BY seq")
    names = ("key", "version", "kind", "path", "digest", "size")
    rows = []
    for number, (at, actor, body) in enumerate(op.get_bind().execute(told) or (), 1):  # None: it is only written down
        said = json.loads(body)
        rows.append({"number": number, "at": at, "actor": actor, **{name: said[name] for name in names}})
    op.bulk_insert(table, rows)


def downgrade() -> None:
    op.drop_table("reference_version")
