"""One history from two records: the events of catalog and provenance.jsonl, each in the place of its digest.

An event names the one before it by its digest, so order, doubles and lines that somebody put in do not matter. What
nobody has is a gap; where such events are found later, their digests fit into it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ctcore.catalog.event_log import GENESIS, MISSING, event_digest, unanswered, vouched_digests

Row = dict[str, Any]


@dataclass
class History:
    """The longest history that the records prove.

    `rows`: its events, redacted where a purge did so and that form is there. `missing`: (first, last) of events that
    nobody has. `changed`: numbers of events of which only an edited copy is there → the digest it has. `others`: events
    that are whole and not of it: there were two histories. `head`: what the next event follows, be it there or not.
    `more`: something else is lost, and nobody knows what.
    """

    rows: list[Row]
    missing: list[tuple[int, int]] = field(default_factory=list)
    changed: dict[int, str] = field(default_factory=dict)
    others: list[Row] = field(default_factory=list)
    head: tuple[int, str] = (0, GENESIS)
    more: bool = False

    @property
    def accepted(self) -> dict[str, str]:
        """What somebody has answered for: in the words of `accept-loss`."""
        return {
            key: said for row in self.rows if row["kind"] == "accept-loss" for key, said in vouched_digests(row).items()
        }

    def unknown(self) -> dict[str, str]:
        """What is not known any more, and nobody has answered for: what `accept-loss` would list."""
        found = {f"{first}-{last}": MISSING for first, last in self.missing}
        found |= {str(seq): digest for seq, digest in self.changed.items()}
        return unanswered(found, self.accepted)


def merge_history(records: Sequence[Iterable[Row]], seen: tuple[int, str] | None) -> History:
    """The history of these records; of two that prove one equally, the first goes before. `seen`: what the witness has
    seen last.

    Of two histories with a common beginning, that of the witness is taken, then the longer one.
    """
    pool = _Pool([list(some) for some in records], seen)
    chosen = pool.chosen()
    answered = [vouched_digests(pool.variants[digest][digest]) for digest in chosen if digest in pool.variants[digest]]
    last = {key: said for one in answered for key, said in one.items()}
    every = {(key, said) for one in answered for key, said in one.items()}
    found = History([])
    for digest in chosen:
        row, now = _variant(pool.variants[digest], digest, str(pool.seq[digest]), last, every)
        found.rows.append({**row, "digest": digest})
        seq = row["seq"]
        if now != digest and (str(seq), now) not in every:
            found.changed[seq] = now
    found.missing = list(_gaps([row["seq"] for row in found.rows]))
    taken = set(chosen)
    whole = (pool.variants[one][one] for one in pool.variants if one not in taken and one in pool.variants[one])
    found.others = sorted(whole, key=lambda row: row["seq"])
    if found.rows:
        found.head = (found.rows[-1]["seq"], found.rows[-1]["digest"])
    if seen is not None and seen[1] not in taken:
        if seen[0] > found.head[0]:
            found.missing.append((found.head[0] + 1, seen[0]))
            found.head = seen
        else:
            found.more = not any(first <= seen[0] <= last for first, last in found.missing)
    return found


def _variant(
    some: Mapping[str, Row], digest: str, seq: str, last: Mapping[str, str], every: set[tuple[str, str]]
) -> tuple[Row, str]:
    """Of the forms in which an event is there: as it was redacted last, as it was written, redacted before, edited."""
    order = [last.get(seq, ""), digest, *(now for now in some if (seq, now) in every), *some]
    now = next(one for one in order if one in some)
    return some[now], now


def _gaps(seqs: Iterable[int]) -> Iterator[tuple[int, int]]:
    expected = 1
    for seq in seqs:
        if seq > expected:
            yield expected, seq - 1
        expected = seq + 1


class _Pool:
    """All events of all records by the digest that others know them by; each with its forms by the digest they have."""

    def __init__(self, records: Sequence[Sequence[Row]], seen: tuple[int, str] | None) -> None:
        self.seen = seen
        self.variants: dict[str, dict[str, Row]] = {}
        self.seq: dict[str, int] = {}
        self.before: dict[str, str] = {}
        self.record: dict[str, int] = {}
        rows = [(at, row, event_digest(row)) for at, some in enumerate(records) for row in some]
        named = {row["previous"] for _, row, _ in rows} | ({seen[1]} if seen else set())
        listed = {one for _, row, now in rows if now == row["digest"] for one in vouched_digests(row).items()}
        doubtful = []
        for at, row, now in rows:
            if now == row["digest"] or (str(row["seq"]), now) in listed:
                self._put(row["digest"], now, row, at)
            elif now in named:  # only its own digest is otherwise than it was
                self._put(now, now, row, at)
            else:
                doubtful.append((at, row, now))
        self._take_edited(doubtful, {row["previous"]: row["seq"] for _, row, _ in rows})

    def _put(self, digest: str, now: str, row: Row, at: int) -> None:
        self.variants.setdefault(digest, {}).setdefault(now, row)
        if digest not in self.seq or now == digest:
            self.seq[digest], self.before[digest] = row["seq"], row["previous"]
        self.record.setdefault(digest, at)

    def _take_edited(self, doubtful: Sequence[tuple[int, Row, str]], follows: Mapping[str, int]) -> None:
        """Edited events of which there is no other copy, where number, digest and place fit to an event beside them."""
        taken = set(self.before.values())
        edited = {row["digest"]: row["seq"] for _, row, _ in doubtful}
        numbers = {**edited, **self.seq, GENESIS: 0}
        for at, row, now in doubtful:
            digest, seq = row["digest"], row["seq"]
            is_followed = follows.get(digest) == seq + 1
            follows_one = numbers.get(row["previous"]) == seq - 1 and row["previous"] not in taken
            if not {digest, now} & self.variants.keys() and (is_followed or follows_one) and seq > 0:
                self._put(digest, now, row, at)

    def chosen(self) -> list[str]:
        """The digests of one history, first to last: the best end, and before each gap the one that ends last."""
        inner = {before for one, before in self.before.items() if self.seq.get(before) == self.seq[one] - 1}
        paths = [self._path(one) for one in self.variants if one not in inner]
        paths.sort(key=self._rank, reverse=True)
        found = paths[0] if paths else []
        while found and (low := self.seq[found[0]]) > 1:
            earlier = [[one for one in path if self.seq[one] < low] for path in paths]
            best = max(filter(None, earlier), key=lambda path: self.seq[path[-1]], default=[])
            if not best:
                break
            found = best + found
        return found

    def _path(self, end: str) -> list[str]:
        """An event and all before it, as far as each is there."""
        path, seq = [end], self.seq[end]
        while self.seq.get(before := self.before[path[-1]]) == seq - 1:
            path.append(before)
            seq -= 1
        return path[::-1]

    def _rank(self, path: Sequence[str]) -> tuple[bool, int, int, int]:
        is_seen = self.seen is not None and self.seen[1] in path
        edited = sum(one not in self.variants[one] for one in path)
        return is_seen, self.seq[path[-1]], -edited, -self.record[path[-1]]
