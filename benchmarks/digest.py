"""Digests of one large file and of many small ones beside b3sum, and the second look, which reads nothing."""

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.cohort import SETTLED_S
from benchmarks.measure import Measured, Row, Target, expect, run, timed
from ctcore.intake.raw_files import Memory
from ctcore.store.digest import digest_files, digest_remembered
from tests.helpers.kit import make_project

LARGE_BYTES, QUICK_BYTES = 1 << 30, 1 << 26
SMALL_FILES, QUICK_FILES = 20_000, 200
SMALL_BYTES = 4096
NO_B3SUM = "skipped: b3sum is not on PATH"
SLOWER = 1 / 0.9


def measure(folder: Path, quick: bool) -> Iterator[Row]:
    large, small = _write(folder, QUICK_BYTES if quick else LARGE_BYTES, QUICK_FILES if quick else SMALL_FILES)
    size = os.stat(large).st_size >> 20
    yield _beside_b3sum("digest, one file", f"{size} MiB", [large])
    yield _beside_b3sum("digest, small files", f"{len(small)} × 4 KiB", small)
    yield _second_look(folder, [Path(path) for path in small])


def _write(folder: Path, size: int, files: int) -> tuple[str, list[str]]:
    """Everything is in the page cache afterwards, and old enough that nobody may still be writing to it."""
    block = os.urandom(1 << 24)
    large = folder / "large"
    with large.open("wb") as stream:
        for _ in range(size // len(block)):
            stream.write(block)
    small = []
    for at in range(files):
        path = folder / f"{at // 1000}" / f"{at}.bin"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(at.to_bytes(4, "big") + block[: SMALL_BYTES - 4])
        small.append(str(path))
    time.sleep(SETTLED_S)
    return str(large), small


def b3sum(paths: Sequence[str | Path], list_in: Path) -> Measured | None:
    """b3sum of files that are in the page cache, in as few processes as take them; None where there is no b3sum."""
    if shutil.which("b3sum") is None:
        return None
    listed = list_in / "paths"
    listed.write_bytes(b"".join(os.fsencode(path) + b"\0" for path in paths))
    found = run(["xargs", "-0", "-a", str(listed), "b3sum"])
    said = dict(line.split("  ", 1)[::-1] for line in found.value.decode().splitlines())
    return replace(found, value=said)


def _beside_b3sum(what: str, size: str, paths: Sequence[str]) -> Row:
    digest_files(paths)
    mine = timed(lambda: digest_files(paths))
    theirs = b3sum(paths, Path(paths[0]).parent)
    if theirs is None:
        return Row(what, size, mine, NO_B3SUM, target=Target(SLOWER, "×"))
    expect("digests", mine.value, theirs.value)
    return Row(what, size, mine, "b3sum", theirs, Target(SLOWER, "×"))


def _second_look(folder: Path, paths: list[Path]) -> Row:
    memory = Memory(make_project(folder / "project"))
    first = digest_remembered(paths, memory)
    again = timed(lambda: digest_remembered(paths, memory))
    expect("remembered digests", again.value, first)
    bare = timed(lambda: [os.stat(path) for path in paths])
    size = f"{len(paths)} × 4 KiB"
    return Row("digest, second look", size, again, "os.stat of each", bare)
