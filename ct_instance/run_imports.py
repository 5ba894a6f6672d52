"""What every run imports: the process that runs are forked from has it. Nothing of a project is in it, and nothing that
opens a database."""

import gc
import os
from contextlib import suppress
from importlib import import_module

MODULES = (
    "dagster._grpc.impl",
    "dagster._core.definitions.repository_definition.repository_data_builder",
    "dagster._core.execution.plan.active",
    "dagster._core.executor.in_process",
    "dagster._core.instance.factory",
    "dagster._core.storage.local_compute_log_manager",
    "dagster._core.storage.root",
    "dagster._core.storage.sqlite_storage",
    "dagster._core.workspace.autodiscovery",
    "alembic.runtime.migration",
    "fsspec.implementations.local",
    "upath.implementations.local",
    "ct_instance.forked_runs",
    "ctcore.cohorts.registry",
    "ctcore.execution.runners",
    "ctcore.execution.slurm.reconcile",
    "ctcore.integrity.verify",
    "ctcore.planning.ahead",
    "ctcore.planning.plan_text",
    "ctcore.planning.requests",
    "ctcore.query.readiness",
    *(["dagster_postgres"] if os.environ.get("CT_POSTGRES_URL") else []),
)

# Imports make no garbage, and what they make is never collected: a fork that looked through it would copy it.
gc.disable()
for _one in MODULES:
    with suppress(ImportError):  # a run imports it itself, where it is named otherwise by now
        import_module(_one)
gc.freeze()
gc.enable()
