"""① Phenopackets (GA4GH, version 2): subjects and biosamples → patients and specimens, by the names of their fields.

https://phenopacket-schema.readthedocs.io/en/latest/phenopacket.html
"""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from ctcore import jsontext
from ctcore.errors import SheetError
from ctcore.sheet.values import control_characters

Line = tuple[int, list[str]]
_SEX = {"MALE": "male", "FEMALE": "female", "OTHER_SEX": "other", "UNKNOWN_SEX": "unknown", "0": "unknown"}
_PARTS = {"id", "subject", "biosamples", "metaData", "meta_data"}


def read_phenopackets(text: str, place: str) -> tuple[list[str], list[Line], list[str], tuple[str, ...]]:
    """Header, rows (numbered by their packet), problems, and what was not taken. SheetError where nothing is one."""
    try:
        document = jsontext.loads(text, object_pairs_hook=_each_once)
    except ValueError as error:
        raise SheetError(place, [f"it is not JSON: {error}; a phenopacket or a list of them is expected"]) from None
    packets = list(_packets(document))
    if not packets:
        raise SheetError(place, ["no phenopacket in it; one, a list of them, or a cohort or family is expected"])
    found = [(number, one) for number, packet in enumerate(packets, 1) for one in _entities(packet)]
    problems = [f"row {number}: {one}" for number, one in found if isinstance(one, str)]
    listed = [(number, one) for number, one in found if isinstance(one, dict)]
    if not listed:
        raise SheetError(place, problems)
    header = list(dict.fromkeys(name for _, one in listed for name in one))
    rows = [(number, [one.get(name, "") for name in header]) for number, one in listed]
    return header, rows, [*problems, *control_characters(rows, header)], tuple(_not_taken(packets))


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; ValueError where one field stands twice, of which only the last would be taken."""
    twice = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
    if twice:
        raise ValueError(f"the field {twice[0]!r:.80} stands twice in one object")
    return dict(pairs)


def _packets(document: Any) -> Iterator[Any]:
    """One packet, a list of them, or the members of a cohort or family."""
    if isinstance(document, list):
        for one in document:
            yield from _packets(one)
    elif isinstance(document, dict) and isinstance(document.get("members"), list):
        yield from document["members"]
    elif isinstance(document, dict) and "proband" in document:
        relatives = document.get("relatives") or []
        yield from [document["proband"], *(relatives if isinstance(relatives, list) else [relatives])]
    else:
        yield document


def _entities(packet: Any) -> Iterator[dict[str, str] | str]:
    """A row a biosample, or one of the subject alone; a text is a problem."""
    if not isinstance(packet, dict) or not isinstance(packet.get("subject", {}), dict):
        yield "is no phenopacket; an object with a subject is expected"
        return
    subject = packet.get("subject", {})
    patient = {f"patient.{name}": value for name, value in _fields(subject)}
    biosamples = packet.get("biosamples", [])
    if not isinstance(biosamples, list) or not all(isinstance(one, dict) for one in biosamples):
        yield "biosamples is not a list of objects; correct the phenopacket"
        return
    named = _id(subject.get("id")) or ""
    if "id" in subject:
        yield {"patient_id": named, **patient} if named else f"the subject's id, {subject['id']!r:.80}, is no text"
    for number, one in enumerate(biosamples, 1):
        name, said = _id(one.get("id")), one.get("individualId", one.get("individual_id"))
        own = {f"specimen.{name}": value for name, value in _fields(one)}
        if name is None:
            yield f"biosample {number} has no id that is a text ({one.get('id')!r:.80}); name it, or take it out"
        elif (owner := named if said in (None, "") else _id(said)) is None:
            yield f"biosample {number}: its individualId, {said!r:.80}, is no text"
        else:
            yield {"patient_id": owner, "specimen_id": name, **own}
    if "id" not in subject and not biosamples:
        yield "has neither a subject with an id nor biosamples"


def _id(value: Any) -> str | None:
    """An ID as it is written; None where it is blank, or nothing that a person would call one."""
    is_one = isinstance(value, str | int) and not isinstance(value, bool)
    return str(value).strip() or None if is_one else None


def _fields(entity: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Simple fields by their name in small letters: sampledTissue {id, label} is sampled_tissue, its label."""
    for key, value in entity.items():
        name = re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", str(key)).lower()
        text = _scalar(value)
        if name in ("id", "individual_id") or text is None:
            continue
        yield name, _SEX.get(text, text) if name == "sex" else text


def _scalar(value: Any) -> str | None:
    """A field's value as text: a term of an ontology is its label, a time its day, an age its duration."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        text = str(value).strip()
        day = re.fullmatch(r"([0-9]{4}-[0-9]{2}-[0-9]{2})T[0-9:.]+Z?", text)
        return day[1] if day else text
    if isinstance(value, dict):
        for key in ("label", "id", "timestamp", "iso8601duration", "age", "status"):
            if key in value:
                return _scalar(value[key])
    return None


def _not_taken(packets: list[Any]) -> Iterator[str]:
    """Parts of packets for which a registry has no place, counted."""
    counts: Counter[str] = Counter()
    for packet in packets:
        for key, value in packet.items() if isinstance(packet, dict) else ():
            if key not in _PARTS and value:
                counts[str(key)] += len(value) if isinstance(value, list) else 1
    for key, count in sorted(counts.items()):
        yield f"{key:.80}: {count} not taken; they describe no patient or specimen by a column"
