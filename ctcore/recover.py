"""② A lost catalog again: its tables from provenance.jsonl, and what was made from what from the store's sidecars."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select

from ctcore.agreement import compared
from ctcore.catalog import measured
from ctcore.catalog.chain import check_chain
from ctcore.catalog.declared import applied, enforce
from ctcore.catalog.engine import HEAD, Catalog, Writer
from ctcore.catalog.replay import Event, Replay, Told
from ctcore.catalog.tables import event, metadata
from ctcore.errors import CatalogError, Usage
from ctcore.ledger import entry_of, insert_makings, is_record_of, recipe_numbers, recipe_of
from ctcore.project import Project
from ctcore.purging.retold import as_purged
from ctcore.reasons import name_of
from ctcore.tombstones import entry_told

# In this order: what others point to comes first
_BEFORE = ("entity", "file", "reference", "reference_version", "result")
_AFTER = (
    "reproduction",
    "artifact",
    "damage",
    "acceptance",
    "waiver",
    "qc_act",
    "qc_event",
    "qc_resolution",
    "consent",
    "attempt",
)
_LAST = ("purge", "tombstone", "cohort_rule", "setting")
_UNKNOWN = {"mtime_ns": 0, "inode": 0, "ctime_ns": 0}  # so each raw file is read again when it is looked at


@dataclass(frozen=True)
class Recovered:
    """How much there is again, and which makings have no files any more, or others in their place since: they are not
    in the ledger."""

    events: int
    makings: int
    lost: tuple[str, ...]
    replaced: tuple[str, ...]
    left: tuple[tuple[str, str], ...]


def recover(project: Project) -> Recovered:
    """Write the catalog anew. Refused where it has anything, or where the journal is not whole."""
    journal = project.root / "provenance.jsonl"
    catalog = Catalog(project.catalog_url, project.id, journal)
    _refuse_full(catalog)
    if not journal.is_file():
        raise Usage(f"{journal} is not there, and the catalog cannot be made from anything else")
    events = as_purged(catalog.journal.read())
    if problems := check_chain(iter(events), f"{journal.name} line"):
        raise CatalogError("the journal is not whole, and nothing was written:\n  " + "\n  ".join(problems))
    replay = Replay().take(Event(*(row[name] for name in Event._fields)) for row in events)
    makings, lost, replaced = _makings(project, replay)
    names = [[name_of((one.row["asset"], one.row["partition"])) for one in some.values()] for some in (lost, replaced)]
    with catalog.alone() as connection:
        writer = Writer(connection, catalog.actor)
        writer.insert(event, events)
        _write(writer, replay, makings)
        writer.event("recover", "catalog", {"events": len(events), "lost": names[0], "without": [*lost, *replaced]})
        writer.flush()
        left = compared(connection)
    catalog.mirror()
    catalog.engine.dispose()
    return Recovered(len(events), len(makings), tuple(names[0]), tuple(names[1]), tuple(left))


def _refuse_full(catalog: Catalog) -> None:
    from ctcore.catalog.migrations import upgrade

    if (catalog.version() or "") < HEAD:
        upgrade(catalog)
    with catalog.read() as connection:
        if connection.execute(select(func.count()).select_from(event)).scalar():
            raise Usage(f"the catalog {catalog.place} is not lost: it has events; `ct verify` says whether it is right")


def _makings(project: Project, replay: Replay) -> tuple[list[dict[str, Any]], dict[int, Told], dict[int, Told]]:
    """What the ledger has to know of those whose files are in the store or were purged; of the others by number those
    that have none, and those whose files are of a later making of the same call."""
    found: list[dict[str, Any]] = []
    lost, replaced = dict[int, Told](), dict[int, Told]()
    last = {_call(told.row): number for (number,), told in replay.tables["materialization"].items()}
    for (number,), told in replay.tables["materialization"].items():
        row = told.row
        if number in replay.stones:
            entry = entry_told(replay.stones[number])
            found.append({**entry, "recipe": recipe_of(entry["side"])})
            continue
        published = project.store.find(row["asset"], row["partition"], row["key"])
        if published is None or published.data_version != row["data_version"]:
            lost[number] = told
            continue
        entry = entry_of(project, published)
        side = {**entry["side"], "reason": row["reason"]}
        one = {**entry, "side": side, "recipe": recipe_of(side), "id": number}
        if last[_call(row)] != number and row.get("record") and not is_record_of(one, row["record"]):
            replaced[number] = told
        else:
            found.append(one)
    return found, lost, replaced


def _call(row: Mapping[str, Any]) -> tuple[str, str, str]:
    """Makings of one call have one folder: the last one is in it."""
    return row["asset"], row["partition"], row["key"]


def _write(writer: Writer, replay: Replay, makings: list[dict[str, Any]]) -> None:
    for name in _BEFORE:
        _insert(writer, name, replay.tables[name].values())
    numbers = recipe_numbers(writer, [one["recipe"] for one in makings])
    insert_makings(writer, makings, numbers)
    made = {one["id"]: {**one, "recipe": numbers[one["recipe"].digest]} for one in makings}
    pointers = [one for one in replay.tables["artifact"].values() if one.row["materialization"] in made]
    replay.tables["artifact"] = {
        (one.row["asset"], one.row["partition"]): Told(_pointer(one.row, made), one.event) for one in pointers
    }
    stones = replay.tables["tombstone"]
    replay.tables["tombstone"] = {key: told for key, told in stones.items() if key[0] in made}
    again = replay.tables["reproduction"]
    replay.tables["reproduction"] = {key: one for key, one in again.items() if one.row["materialization"] in made}
    for name in (*_AFTER, *_LAST):
        _insert(writer, name, replay.tables[name].values())
    if (levels := applied(writer.connection)) is not None:
        enforce(writer.connection, levels)
    if analyses := measured.applied(writer.connection):
        measured.enforce(writer.connection, analyses)


def _pointer(row: Mapping[str, Any], made: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    one = made[row["materialization"]]
    more = {"recipe": one["recipe"], "data_version": one["data_version"], "key": one["side"]["key"]}
    return {**row, **more, "checked_at": None}


def _insert(writer: Writer, name: str, told: Iterable[Told]) -> None:
    more = _UNKNOWN if name == "file" else {}
    columns = [column.name for column in metadata.tables[name].columns]
    rows = [{**more, **one.row} for one in told]
    writer.insert(metadata.tables[name], [{column: row.get(column) for column in columns} for row in rows])
