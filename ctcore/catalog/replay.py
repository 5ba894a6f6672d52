"""The tables as the events say they are: what `ct verify` compares with what is there. A kind of event a function.

A column of which no event tells (when a file was last looked at, say) is in no row of this.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from ctcore.catalog.ownership import HELD
from ctcore.catalog.purge_numbers import UNRECORDED, PurgeNumbers
from ctcore.catalog.row_numbers import FREE, setting_of
from ctcore.catalog.tables import metadata
from ctcore.store.digest import canonical_json, digest_value

Key = tuple[Any, ...]
Body = Mapping[str, Any]


class ReplayedRow(NamedTuple):
    """A row as events told of it: its columns, and the number of the last event that did."""

    row: dict[str, Any]
    event: int


class Event(NamedTuple):
    """An event of the chain."""

    seq: int
    at: str
    actor: str
    kind: str
    subject: str
    body: str


class Replay:
    """Table → primary key → row, after the events that it was given, in their order."""

    KEYS: Mapping[str, tuple[str, ...]] = {
        "entity": ("seq",),
        "file": ("entity", "role"),
        "reference": ("key",),
        "reference_version": ("number",),
        "result": ("id",),
        "materialization": ("id",),
        "reproduction": ("id",),
        "artifact": ("asset", "partition"),
        "damage": ("asset", "partition", "file"),
        "acceptance": ("id",),
        "waiver": ("asset", "partition", "materialization", "evidence", "acceptance"),
        "qc_act": ("id",),
        "qc_event": ("id",),
        "qc_resolution": ("event",),
        "consent": ("id",),
        "purge": ("id",),
        "tombstone": ("materialization",),
        "cohort_rule": ("id",),
        "attempt": ("id",),
        "setting": ("name",),
    }

    def __init__(self) -> None:
        self.tables: dict[str, dict[Key, ReplayedRow]] = {name: {} for name in self.KEYS}
        self.numbers: dict[str, int] = {}
        self.same: dict[int, int] = {}  # of who was registered twice: the number that another event gave → theirs
        self.waiting: dict[str, list[tuple[Event, Body]]] = {}  # what events tell of entities that nobody registered
        self.gone: dict[str, int] = {}  # of those: who was purged → the purge
        self.versions: dict[Key, int] = {}
        self.stones: dict[int, Body] = {}
        self.purges = PurgeNumbers()
        self.removed: dict[str, tuple[int, int]] = {}  # folder of the store → who purged it last: purge and event
        self._last: dict[str, int] = {}
        self._harmed: dict[tuple[str, str], set[str]] = {}
        self._seen: Event | None = None

    def take(self, events: Iterable[Event]) -> "Replay":
        """What these events say. One that cannot be understood says nothing: the chain tells that it was changed."""
        for event in events:
            self._seen = event
            if (tell := KINDS.get(event.kind)) is not None:
                try:
                    tell(self, event, json.loads(event.body))
                except (KeyError, TypeError, ValueError, AttributeError):
                    continue
        return self

    def without_orphans(self) -> "Replay":
        """Without the rows that belong to what nobody tells of: the events of that were lost."""
        for name, rows in self.tables.items():
            keys = [(key.parent.name, key.column.table.name) for key in metadata.tables[name].foreign_keys]
            above = [(column, self.tables[other]) for column, other in keys if other in self.tables]
            for key, (row, _) in list(rows.items()) if above else ():
                if any(row.get(column) is not None and (row[column],) not in others for column, others in above):
                    del rows[key]
        return self

    def put(self, table: str, **row: Any) -> None:
        key = tuple(row[name] for name in self.KEYS[table])
        self.tables[table][key] = ReplayedRow(row, self._now.seq)
        if isinstance(key[0], int):
            self._last[table] = max(key[0], self._last.get(table, 0))

    def change(self, table: str, key: Key, **columns: Any) -> None:
        row = self.tables[table][key].row
        self.tables[table][key] = ReplayedRow({**row, **columns}, self._now.seq)

    def next(self, table: str) -> int:
        """The number of the next row of a table whose rows are only added."""
        return self._last.get(table, 0) + 1

    def of_known_entities(self, event: Event, body: Body) -> Iterator[tuple[int, Body]]:
        """What an event tells of entities, each with its place in the event. What it tells of one whose registration
        was lost waits until the entity is registered again."""
        many, entity_of = TELLING_OF_ENTITIES[event.kind]
        for at, one in enumerate(body[many]):
            if (name := entity_of(one)) in self.numbers:
                yield at, one
            else:
                self.waiting.setdefault(name, []).append((event, {**body, many: [one]}))

    def tell_waiting(self, name: str) -> None:
        """What waited for this entity, which is registered now."""
        now = self._seen
        for event, body in self.waiting.pop(name, ()):
            self._seen = event
            KINDS[event.kind](self, event, body)
        self._seen = now

    def actor_and_time(self) -> dict[str, str]:
        """Who did it when, as rows have it."""
        return {"at": self._now.at, "actor": self._now.actor}

    @property
    def _now(self) -> Event:
        if self._seen is None:
            raise ValueError("no event was taken yet")
        return self._seen

    def set_current(self, asset: str, partition: str, materialization: int) -> None:
        """The node is this making from now on, and what was damaged of it is settled."""
        self.put("artifact", asset=asset, partition=partition, materialization=materialization)
        for name in self._harmed.pop((asset, partition), ()):
            self.tables["damage"].pop((asset, partition, name), None)

    def drop(self, asset: str, partition: str, said: Body) -> None:
        """The making is a tombstone: nothing points to it, and its rows are those that its end tells of."""
        materialization, told = said["materialization"], self.tables["artifact"].get((asset, partition))
        if (materialization,) not in self.tables["materialization"]:
            return
        if told is not None and told.row["materialization"] == materialization:
            self.set_current(asset, partition, materialization)
            del self.tables["artifact"][(asset, partition)]
        self.change("materialization", (materialization,), record=said["record"])
        self.stones[materialization] = said

    def forget_results(self, entities: set[int]) -> None:
        kept = {key: told for key, told in self.tables["result"].items() if told.row["entity"] not in entities}
        self.tables["result"] = kept
        self.versions = {key: last for key, last in self.versions.items() if key[0] not in entities}
        self._last["result"] = max((key[0] for key in kept), default=0)

    def mark_damaged(self, asset: str, partition: str, body: Body) -> None:
        self._harmed.setdefault((asset, partition), set()).add(body["file"])
        self.put("damage", asset=asset, partition=partition, **body, found_at=self._now.at)

    def mark_whole(self, asset: str, partition: str, name: str) -> None:
        self._harmed.get((asset, partition), set()).discard(name)
        self.tables["damage"].pop((asset, partition, name), None)


_TOLD = ("size", "facts", "reason", "run_id", "started_at", "seconds", "rule")
_BESIDE = ("actor", "host", "git", "undeclared")


def making_digest(row: Body, recipe: str, parts: Iterable[Iterable[Iterable[Any]]]) -> str:
    """What the event of a making holds of its rows in the ledger. `parts`: its outputs, inputs and members."""
    return _digest_of("ct.making.v2", (*_TOLD, *_BESIDE), row, recipe, parts)


def matches_event(record: str, row: Body, recipe: str, parts: Iterable[Iterable[Iterable[Any]]]) -> bool:
    """Whether this is what an event holds of these rows. Events of before know nothing of who asked, and of git; the
    host comes from the sidecar, where a lost catalog was made again."""
    listed = [[list(one) for one in part] for part in parts]
    if record == making_digest(row, recipe, listed):
        return True
    unknown = all(row.get(name) is None for name in _BESIDE if name != "host")
    return unknown and record == _digest_of("ct.making.v1", _TOLD, row, recipe, listed)


def _digest_of(tag: str, names: Iterable[str], row: Body, recipe: str, parts: Iterable[Iterable[Iterable[Any]]]) -> str:
    listed = [sorted(list(one) for one in part) for part in parts]
    return digest_value(tag, [recipe, {name: row[name] for name in names}, *listed])


def _register(replay: Replay, _event: Event, body: Body) -> None:
    same = replay.same
    for row in body.get("new", ()):
        known = replay.numbers.setdefault(f"{row['level']}/{row['id']}", row["seq"])
        parent = same.get(row["parent"], row["parent"])
        if known == row["seq"]:
            purged = replay.gone.pop(f"{row['level']}/{row['id']}", None)
            replay.put("entity", **{**row, "parent": parent}, purged=purged)
        else:  # registered while the event that did it first was lost
            same[row["seq"]] = known
            before = replay.tables["entity"][(known,)].row["attributes"]
            both = _text(json.loads(before) | json.loads(row["attributes"]))
            replay.change("entity", (known,), parent=parent, attributes=both)
        replay.tell_waiting(f"{row['level']}/{row['id']}")
    for row in body.get("changed", ()):
        key, parent = (same.get(row["b_seq"], row["b_seq"]),), same.get(row["parent"], row["parent"])
        if key in replay.tables["entity"]:
            replay.change("entity", key, parent=parent, attributes=row["attributes"])
    for row in body.get("files", ()):
        said = {name: row[name] for name in ("role", "path", "digest", "size", "problem")}
        replay.put("file", entity=same.get(row["entity"], row["entity"]), **said)


def _file(replay: Replay, event: Event, body: Body) -> None:
    key = (replay.numbers[event.subject], body["role"])
    if "new" not in body:
        replay.change("file", key, problem=body["problem"])
        return
    size = {"size": body["size"]} if "size" in body else {}
    if not size:
        replay.tables["file"][key].row.pop("size", None)
    replay.change("file", key, digest=body["new"], problem=None, **size)


def _reference(replay: Replay, _event: Event, body: Body) -> None:
    row = {name: value for name, value in body.items() if name not in ("old", "reason")}
    replay.put("reference", **row)
    number = replay.next("reference_version")
    replay.put("reference_version", number=number, **row, reason=body.get("reason"), **replay.actor_and_time())


def _materialize(replay: Replay, event: Event, body: Body) -> None:
    asset, partition = _node(event.subject)
    # Events of an earlier ct do not tell the number: makings were numbered in the order of their events.
    number = body.get("materialization") or replay.next("materialization")
    replay.put("materialization", **{**body, "id": number, "asset": asset, "partition": partition})
    replay.tables["materialization"][(number,)].row.pop("materialization", None)
    replay.set_current(asset, partition, number)


def _recover(replay: Replay, _event: Event, body: Body) -> None:
    """Makings that came back without their files are in no table from then on, but those that a purge removed: that
    event, which may have turned up since, tells all of them. What is lost holds all people back."""
    _hold(replay, body.get("held"))
    replay.purges.recovered(body)
    if (free := setting_of(body)) is not None:
        replay.put("setting", name=FREE, value=free)
    gone = set(body.get("without", ())) - replay.stones.keys()
    for number in gone:
        replay.tables["materialization"].pop((number,), None)
    pointers = replay.tables["artifact"].items()
    replay.tables["artifact"] = {key: told for key, told in pointers if told.row["materialization"] not in gone}


def _accept_loss(replay: Replay, _event: Event, _body: Body) -> None:
    _hold(replay, None)


def _hold(replay: Replay, said: Body | None) -> None:
    if said:
        replay.put("setting", name=HELD, value=_text(said))
    else:
        replay.tables["setting"].pop((HELD,), None)


def _reproduce(replay: Replay, _event: Event, body: Body) -> None:
    replay.put("reproduction", **body, **replay.actor_and_time())


def _reuse(replay: Replay, event: Event, body: Body) -> None:
    replay.set_current(*_node(event.subject), body["materialization"])


def _fail(replay: Replay, event: Event, body: Body) -> None:
    asset, partition = _node(event.subject)
    number = replay.next("attempt")
    replay.put("attempt", id=number, asset=asset, partition=partition, ended_at=event.at, **body)


def _damage(replay: Replay, event: Event, body: Body) -> None:
    replay.mark_damaged(*_node(event.subject), body)


def _heal(replay: Replay, event: Event, body: Body) -> None:
    replay.mark_whole(*_node(event.subject), body["file"])


def _accept(replay: Replay, event: Event, body: Body) -> None:
    number, nodes = body["acceptance"], body["partitions"]
    replay.put("acceptance", id=number, undoes=False, reason=body["reason"], **replay.actor_and_time())
    same = {name: body[name] for name in ("kind", "evidence", "words")} | {"acceptance": number, "undone": None}
    for partition, making in nodes.items():
        replay.put("waiver", asset=_asset(event, nodes), partition=partition, materialization=making, **same)


def _accept_undone(replay: Replay, event: Event, body: Body) -> None:
    number, nodes = body["acceptance"], set(body["partitions"])
    replay.put("acceptance", id=number, undoes=True, reason=body["reason"], **replay.actor_and_time())
    asset, evidence = _asset(event, nodes), body["evidence"]
    for key, told in list(replay.tables["waiver"].items()):
        mine = key[0] == asset and key[1] in nodes and key[3] == evidence and told.row["kind"] == body["kind"]
        if mine and told.row["undone"] is None:
            replay.change("waiver", key, undone=number)


def _qc(replay: Replay, event: Event, body: Body) -> None:
    replay.put("qc_act", id=body["act"], source=body["source"], scope=body["scope"], **replay.actor_and_time())
    for _, one in replay.of_known_entities(event, body):
        names = ("id", "kind", "status", "step", "reason", "materialization")
        row = {name: one[name] for name in names if name in one}
        replay.put("qc_event", act=body["act"], entity=replay.numbers[one["name"]], **row)


def _resolved(replay: Replay, _event: Event, body: Body) -> None:
    replay.put("qc_act", id=body["act"], source=body["source"], scope=body["scope"], **replay.actor_and_time())
    for one in body["events"]:
        replay.put("qc_resolution", event=one["id"], act=body["act"], reason=one["reason"])


def _consent(replay: Replay, event: Event, body: Body) -> None:
    number = replay.next("consent")
    for at, one in replay.of_known_entities(event, body):
        row = {name: value for name, value in one.items() if name != "patient"}
        if one["record"] is not None:
            _known_again(replay, one["patient"])
        row |= {"uses": _text(one["uses"]), "record": None if one["record"] is None else _text(one["record"])}
        replay.put(
            "consent",
            id=number + at,
            entity=replay.numbers[f"patient/{one['patient']}"],
            **row,
            **replay.actor_and_time(),
        )


def _purge(replay: Replay, event: Event, body: Body) -> None:
    number = replay.purges.purge(event.seq, body)
    head = {name: body[name] for name in ("patient", "reason", "raw")}
    replay.put("purge", id=number, ended_at=None, **head, **replay.actor_and_time())
    for name in body.get("own", ()):
        if name in replay.numbers:
            replay.change("entity", (replay.numbers[name],), attributes="{}", purged=number)
        else:
            replay.gone[name] = number
            replay.waiting[name] = [one for one in replay.waiting.get(name, ()) if one[0].kind != "record"]
    replay.forget_results({replay.numbers[name] for name in body.get("own", ()) if name in replay.numbers})
    replay.removed |= dict.fromkeys(body.get(UNRECORDED, ()), (number, event.seq))
    for one in body["removed"]:
        replay.removed[one["folder"]] = number, event.seq
        replay.put("tombstone", materialization=one["materialization"], purge=number)
        replay.drop(*_node(one["node"]), one)


def _purged(replay: Replay, event: Event, body: Body) -> None:
    replay.change("purge", (replay.purges.of(body["purge"]),), ended_at=event.at)


def _record(replay: Replay, event: Event, body: Body) -> None:
    same = {name: body[name] for name in ("analysis", "run", "reason", "source")} | replay.actor_and_time()
    for _, one in replay.of_known_entities(event, body):
        entity = replay.numbers[one["entity"]]
        which = (entity, body["analysis"], body["run"])
        last = replay.versions.get(which, 0)  # which was not known, where the event of it was lost then
        version = replay.versions[which] = max(one["version"], last + 1)
        row = {"version": version, "facts": _text(one["values"])}
        replay.put("result", id=replay.next("result"), entity=entity, **row, **same)


def _analyses(replay: Replay, _event: Event, body: Body) -> None:
    replay.put("setting", name="analyses", value=_text(body["new"]))


def _known_again(replay: Replay, patient: str) -> None:
    """Consent was given again: what a purge took out may be registered again."""
    theirs = {key[0] for key, told in replay.tables["purge"].items() if told.row["patient"] == patient}
    replay.gone = {name: purge for name, purge in replay.gone.items() if purge not in theirs}
    for key, told in list(replay.tables["entity"].items()) if theirs else ():
        if told.row["purged"] in theirs:
            replay.change("entity", key, purged=None)


def _schema(replay: Replay, _event: Event, body: Body) -> None:
    replay.put("setting", name="schema", value=_text(body["new"]))


def _cohort_rule(replay: Replay, event: Event, body: Body) -> None:
    new = body["new"]
    said = {"cohort": event.subject.removeprefix("cohort/"), "version": new["version"], "words": new["words"]}
    texts = {"rule": _text(new["rule"]), "members": _text(body["members"])}
    replay.put("cohort_rule", id=replay.next("cohort_rule"), **said, **texts, **replay.actor_and_time())


def _project(replay: Replay, _event: Event, body: Body) -> None:
    life = {name: body[name] for name in ("state", "at", "by", "reason")}
    replay.put("setting", name="state", value=json.dumps(life))


Tell = Callable[[Replay, Event, Body], None]
KINDS: Mapping[str, Tell] = {
    "register": _register,
    "file": _file,
    "reference": _reference,
    "materialize": _materialize,
    "reuse": _reuse,
    "reproduce": _reproduce,
    "fail": _fail,
    "damage": _damage,
    "heal": _heal,
    "accept": _accept,
    "accept-undone": _accept_undone,
    "warn": _qc,
    "censor": _qc,
    "warn-resolved": _resolved,
    "release": _resolved,
    "consent": _consent,
    "schema": _schema,
    "record": _record,
    "purge": _purge,
    "purged": _purged,
    "analyses": _analyses,
    "cohort-rule": _cohort_rule,
    "project": _project,
    "recover": _recover,
    "accept-loss": _accept_loss,
}
TELLING_OF_ENTITIES: Mapping[str, tuple[str, Callable[[Body], str]]] = {
    "consent": ("consents", lambda one: f"patient/{one['patient']}"),
    "record": ("results", lambda one: one["entity"]),
    **dict.fromkeys(("warn", "censor"), ("events", lambda one: one["name"])),
}
"""Kind of event → where its body lists what it tells of entities, and the entity of each."""
SAYING_ONLY = ("disclose",)  # they change no table


def _node(subject: str) -> tuple[str, str]:
    asset, _, partition = subject.partition("/")
    return asset, partition


def _asset(event: Event, partitions: Iterable[str]) -> str:
    """Of which step the event is: one node is named by its name, many by their step."""
    listed: Iterator[str] = iter(partitions)
    one = next(listed)
    return event.subject if next(listed, None) is not None else event.subject.removesuffix(f"/{one}")


def _text(value: Any) -> str:
    return canonical_json(value).decode()
