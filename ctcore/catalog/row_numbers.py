"""The numbers of new rows: after those that are there, and after those that lost events may have given to others.

A lost event may turn up after others were written. These leave free the numbers that its rows may have.
"""

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Column, Connection, func, select

from ctcore.catalog.tables import acceptance, entity, materialization, purge, qc_act, qc_event, reproduction, setting

FREE = "free"
"""A setting, and in the body of an event `recover`: table → the last number that is left free."""
_AN_EVENT = {entity.c.seq: 1000, qc_event.c.id: 1000} | dict.fromkeys(
    (acceptance.c.id, materialization.c.id, purge.c.id, qc_act.c.id, reproduction.c.id), 1
)  # so many of them one event gives at most
# An integer of PostgreSQL ends with 2^31 - 1 (manual, 8.1.1): half of them are left for rows to come.
_LARGEST = 2**30
_FREE = select(setting.c.value).where(setting.c.name == FREE)


def next_number(connection: Connection, column: Column[int]) -> int:
    """The number of the next new row of a table, by the column that has them."""
    last = connection.execute(select(func.max(column))).scalar() or 0
    said = connection.execute(_FREE).scalar()
    return max(last, json.loads(said).get(column.table.name, 0) if said else 0) + 1


def left_free(last: Mapping[str, int], lost: int) -> dict[str, int]:
    """What is left free where so many events are lost. `last`: the last numbers that are known."""
    rows = ((column.table.name, some) for column, some in _AN_EVENT.items())
    return {name: min(last.get(name, 0) + some * lost, _LARGEST) for name, some in rows}


def setting_of(body: Mapping[str, Any]) -> str | None:
    """The setting that an event `recover` makes."""
    return json.dumps(body[FREE], sort_keys=True) if FREE in body else None
