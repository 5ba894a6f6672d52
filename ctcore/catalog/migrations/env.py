"""How Alembic reaches the catalog: through the connection that `upgrade` hands over. Without one it only writes."""

from alembic import context

from ctcore.catalog.tables import metadata

context.configure(
    connection=context.config.attributes.get("connection"),
    dialect_name=context.config.attributes.get("dialect"),
    target_metadata=metadata,
    # SQLite alters little of a table (sqlite.org/lang_altertable.html): Alembic makes it anew, and copies the rows.
    render_as_batch=True,
    transactional_ddl=None if "connection" in context.config.attributes else False,
)
with context.begin_transaction():
    context.run_migrations()
