"""Alembic's own entry: runs inside the connection and the transaction that ``genba_shared.migrations`` opened."""

from __future__ import annotations

from alembic import context

from genba_shared.db import Record

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Record.metadata,
    compare_type=True,
    compare_server_default=True,
    render_as_batch=True,
    transactional_ddl=True,
    user_module_prefix="db.",
)
with context.begin_transaction():
    context.run_migrations()
