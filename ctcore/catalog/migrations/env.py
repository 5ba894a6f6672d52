"""How Alembic reaches the catalog: through the connection that `upgrade` hands over."""

from alembic import context

from ctcore.catalog.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite alters little of a table (sqlite.org/lang_altertable.html): Alembic makes it anew, and copies the rows.
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
