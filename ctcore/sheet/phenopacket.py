"""Phenopackets (GA4GH, version 2): subjects and biosamples → patients and specimens, by the names of their fields.

https://phenopacket-schema.readthedocs.io/en/latest/phenopacket.html
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ctcore.errors import SheetError
from ctcore.model.values import control_characters
from ctcore.sheet.pedigree import HEADER, check_pedigree, is_nobody
from ctcore.sheet.rows import Rows
from ctcore.util import json_text

Line = tuple[int, list[str]]
_SEX = {"MALE": "male", "FEMALE": "female", "OTHER_SEX": "other", "UNKNOWN_SEX": "unknown", "0": "unknown"}
_STATUS = {"AFFECTED": "affected", "UNAFFECTED": "unaffected", "2": "affected", "1": "unaffected"}
_PARTS = {"id", "subject", "biosamples", "metaData", "meta_data"}


def read_phenopackets(texts: Iterable[str], place: str, *, by_packet: bool = False, names: Sequence[str] = ()) -> Rows:
    """The packets of one or several files, in rows that are numbered by their packet. SheetError if there is none.

    `by_packet`: a patient has the ID of the packet; the subject's is often unique within a publication only. `names`:
    of the files, where there are several.
    """
    documents = []
    for text in texts:
        try:
            documents.append(json_text.loads(text, object_pairs_hook=_each_once))
        except ValueError as error:
            raise SheetError(place, [f"it is not JSON: {error}; a phenopacket or a list of them is expected"]) from None
    listed_by = [(source, packet) for source, document in enumerate(documents) for packet in _packets(document)]
    packets = [packet for _, packet in listed_by]
    if not packets:
        raise SheetError(place, ["no phenopacket in it; one, a list of them, or a cohort or family is expected"])
    found = [(number, one) for number, packet in enumerate(packets, 1) for one in _entities(packet, by_packet)]
    problems = [f"row {number}: {one}" for number, one in found if isinstance(one, str)]
    listed = [(number, one) for number, one in found if isinstance(one, dict)]
    if not listed:
        raise SheetError(place, problems)
    persons = [line for document in documents for line in _persons(document)]
    ids = _packet_ids(packets) if by_packet else {}
    listed += [(number, _patient(cells, ids)) for number, cells in persons]
    problems += [f"pedigree: {said.replace('row ', 'person ')}" for said in check_pedigree(persons)]
    header = list(dict.fromkeys(name for _, one in listed for name in one))
    rows = [(number, [one.get(name, "") for name in header]) for number, one in listed]
    notes = (*_not_taken(packets), *(() if by_packet else _shared_names(packets)))
    problems += control_characters(rows, header)
    files = {number: names[source] for number, (source, _) in enumerate(listed_by, 1)} if names else {}
    hint = "" if by_packet else ", or take the packets' own IDs: --map id=patient_id"
    return Rows(header, rows, problems, lenient=True, notes=notes, id_hint=hint, files=files)


def _persons(document: Any) -> Iterator[Line]:
    """The pedigree of a family, as the rows of one."""
    if isinstance(document, list):
        for one in document:
            yield from _persons(one)
    pedigree = document.get("pedigree") if isinstance(document, dict) else None
    persons = pedigree.get("persons") if isinstance(pedigree, dict) else None
    for number, one in enumerate(persons if isinstance(persons, list) else (), 1):
        if isinstance(one, dict) and (name := _id(one.get("individualId", one.get("individual_id")))):
            keys = (("familyId", "family_id"), ("paternalId", "paternal_id"), ("maternalId", "maternal_id"))
            family, father, mother = ((_id(one.get(camel, one.get(snake))) or "") for camel, snake in keys)
            status = str(one.get("affectedStatus", one.get("affected_status", "")))
            sex = _SEX.get(str(one.get("sex", "")), "unknown")
            parents = ["" if is_nobody(parent) else parent for parent in (father, mother)]
            yield number, ["" if is_nobody(family) else family, name, *parents, sex, _STATUS.get(status, "")]


def _patient(cells: Sequence[str], names: Mapping[str, str]) -> dict[str, str]:
    """A person of a pedigree as a row. `names`: the patients' IDs of subjects, where these are others."""
    said = dict(zip(HEADER, cells, strict=True))
    said |= {one: names.get(said[one], said[one]) for one in ("patient_id", "father_id", "mother_id")}
    sex = said.pop("sex")
    return said | ({"patient.sex": sex} if sex in ("male", "female") else {})


def _packet_ids(packets: Iterable[Any]) -> dict[str, str]:
    """Subject → packet."""
    pairs = ((packet["subject"].get("id"), packet.get("id")) for packet in packets if _has_subject(packet))
    return {subject: packet for one, other in pairs if (subject := _id(one)) and (packet := _id(other))}


def _has_subject(packet: Any) -> bool:
    return isinstance(packet, dict) and isinstance(packet.get("subject"), dict)


def _shared_names(packets: list[Any]) -> Iterator[str]:
    """Subjects of several packets, who need not be one person."""
    counts = Counter(_id(packet["subject"].get("id")) for packet in packets if _has_subject(packet))
    for name, count in counts.items():
        if name and count > 1:
            way = "--map id=patient_id keeps them apart"
            yield f"subject {name!r:.80} of {count} packets is taken as one patient; {way}"


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; ValueError for a duplicate field, of which JSON would keep only the last."""
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


def _entities(packet: Any, by_packet: bool) -> Iterator[dict[str, str] | str]:
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
    of_subject = _id(subject.get("id")) or ""
    named = (_id(packet.get("id")) or "") if by_packet else of_subject
    if by_packet and not named:
        yield "the packet has no id that is a text; give it one, or leave out --map id=patient_id"
    elif "id" in subject:
        yield {"patient_id": named, **patient} if named else f"the subject's id, {subject['id']!r:.80}, is no text"
    for number, one in enumerate(biosamples, 1):
        name, said = _id(one.get("id")), one.get("individualId", one.get("individual_id"))
        own = {f"specimen.{name}": value for name, value in _fields(one)}
        if name is None:
            yield f"biosample {number} has no id that is a text ({one.get('id')!r:.80}); name it, or take it out"
        elif (owner := named if said in (None, "") or _id(said) == of_subject else _id(said)) is None:
            yield f"biosample {number}: its individualId, {said!r:.80}, is no text"
        else:
            yield {"patient_id": owner, "specimen_id": name, **own}
    if "id" not in subject and not biosamples:
        yield "has neither a subject with an id nor biosamples"


def _id(value: Any) -> str | None:
    """An ID as written; None if it is blank or not a text or number."""
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
        day = re.fullmatch(r"([0-9]{4}-[0-9]{2}-[0-9]{2})T[0-9:.]+(Z|[+-][0-9]{2}:?[0-9]{2})?", text)
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
