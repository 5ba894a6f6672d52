"""Data versions as numbers, so that a million of them can be compared at once.

A version is a text. The 64 hexadecimal digits of a digest are kept as they are; any other text (a column's value, a
reference's version) is replaced by its digest. Whole versions have 256 bits. Versions on the ledger's edges, by far the
most, are cut to 128 bits, which still tell any two apart.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctcore.store.digest import digest_text

Whole = NDArray[np.uint64]
"""(n, 4): 256 bits each; zeros where there is none."""
Short = NDArray[np.uint64]
"""(n, 2): the first 128 bits."""
Places = NDArray[Any]
"""(n,) integers: positions of entities in the order of their level, or of cohorts in that of ct.toml."""

_HEX = 64


def pack(texts: Sequence[str | None]) -> Whole:
    """(n, 4) of n texts."""
    found = None if None in texts else of_digests("\n".join(texts))  # type: ignore[arg-type]
    if found is not None and len(found) == len(texts):
        return found
    known = {text: bytes(32) if text is None else bytes.fromhex(digest_text(text)) for text in set(texts)}
    return np.frombuffer(b"".join([known[text] for text in texts]), np.uint64).reshape(-1, 4)


def of_digests(lines: str) -> Whole | None:
    """(n, 4) of n lines; None if one is not a digest and must be packed as text."""
    try:
        raw = bytes.fromhex(lines)
    except ValueError:
        return None
    # There and back: `fromhex` also takes capitals, and blanks between bytes (docs.python.org, bytes.fromhex); a text
    # with those is no digest.
    if len(raw) % (_HEX // 2) or raw.hex("\n", _HEX // 2) != lines:
        return None
    return np.frombuffer(raw, np.uint64).reshape(-1, 4)


def unpack(versions: Whole) -> list[str]:
    """The digests as texts, for versions that were packed from digests."""
    text = np.ascontiguousarray(versions).tobytes().hex()
    return [text[at : at + _HEX] for at in range(0, len(text), _HEX)]


def no_versions(n: int) -> Whole:
    """n times no version."""
    return np.zeros((n, 4), np.uint64)


def is_known(versions: Whole) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = np.any(versions, axis=1)
    return found


def differing_versions(versions: Whole, used: Short) -> NDArray[np.bool_]:
    """Where a version is not the one that was used."""
    # Two of n random 128-bit numbers are equal with a probability of about n² / 2¹²⁹: of 10⁹ edges, 10⁻²¹.
    return (versions[:, 0] != used[:, 0]) | (versions[:, 1] != used[:, 1])


def are_among(versions: Whole, texts: Iterable[str]) -> NDArray[np.bool_]:
    """Where a version equals that of one of these texts."""
    found = np.zeros(len(versions), np.bool_)
    for wanted in pack(list(texts)):
        found |= (versions == wanted).all(axis=1)
    return found
