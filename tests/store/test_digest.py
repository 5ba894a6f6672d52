"""Claims on ctcore.store.digest: one text per value, one digest per content, and no file that changes unseen."""

import hashlib
import json
import mmap
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from ctcore.errors import InputError, Usage
from ctcore.store import digest
from ctcore.store.digest import (
    Signature,
    canonical_json,
    checksum_file,
    digest_files,
    digest_remembered,
    digest_value,
    tagged_digest,
)

MIB = 1 << 20
SIZES = (0, 1, 4096, 128 << 10, (128 << 10) - 1, 256 << 10, 3 * MIB + 17, 64 * MIB, 64 * MIB + 5)
LONG_AGO = (1_600_000_000, 1_600_000_000)

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def typed(value: object) -> object:
    """A value that is equal to another one only if type and content are, deep down."""
    if isinstance(value, dict):
        return {key: typed(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [typed(inner) for inner in value]
    return (type(value).__name__, repr(value))


@given(values)
def test_canonical_text_gives_the_value_back(value: object) -> None:
    assert typed(json.loads(canonical_json(value))) == typed(value)


@given(values, values)
def test_two_values_have_one_digest_only_if_they_are_the_same(one: object, other: object) -> None:
    assert (digest_value("t", one) == digest_value("t", other)) == (typed(one) == typed(other))


@given(st.dictionaries(st.text(), scalars, min_size=2))
def test_the_order_of_keys_does_not_count(value: dict[str, object]) -> None:
    assert canonical_json(dict(reversed(value.items()))) == canonical_json(value)


def test_one_is_written_in_four_ways() -> None:
    assert [canonical_json(v) for v in (1, 1.0, True, "1")] == [b"1", b"1.0", b"true", b'"1"']
    assert canonical_json({"b": [1, 2], "a": "ä"}) == '{"a":"ä","b":[1,2]}'.encode()


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        [-float("inf")],
        {1: "a"},
        {"a": [{None: 1}]},
        {True: 1},
        {1, 2},
        b"x",
        "\ud800",
    ],
)
def test_what_has_no_one_text_is_refused(value: object) -> None:
    with pytest.raises(ValueError):
        canonical_json(value)


@given(st.text(), st.binary(), st.text(), st.binary())
def test_tag_and_data_never_run_into_each_other(tag: str, data: bytes, other_tag: str, other: bytes) -> None:
    tag, other_tag = (re.sub("[\0\ud800-\udfff]", "", t) for t in (tag, other_tag))
    same = (tag, data) == (other_tag, other)
    assert (tagged_digest(tag, data) == tagged_digest(other_tag, other)) == same


def test_a_tag_may_not_end_early() -> None:
    assert tagged_digest("a", b"b") == blake3(b"a\0b").hexdigest()
    with pytest.raises(ValueError, match="NUL"):
        tagged_digest("a\0b", b"")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("files")
    paths = []
    for number, size in enumerate((*SIZES, *SIZES[4:7])):
        paths.append(folder / f"{number}.bin")
        paths[-1].write_bytes(os.urandom(min(size, MIB)) * (size // MIB) + os.urandom(size % MIB))
        os.utime(paths[-1], LONG_AGO)
    while any(Signature.of(path).proven(time.time_ns()).ctime_ns == 0 for path in paths):
        time.sleep(0.01)  # until a write would show
    return paths


def set_age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def truth(paths: list[Path]) -> dict[Path, str]:
    return {path: blake3(path.read_bytes()).hexdigest() for path in paths}


@pytest.mark.parametrize("rss_safe", [False, True])
def test_every_size_has_the_digest_of_its_bytes(files: list[Path], rss_safe: bool) -> None:
    seen: list[int] = []
    assert digest_files(files, on_bytes=seen.append, rss_safe=rss_safe) == truth(files)
    assert sum(seen) == sum(path.stat().st_size for path in files)


def test_freshly_written_files_have_it_too(files: list[Path], tmp_path: Path) -> None:
    copies = [Path(shutil.copyfile(path, tmp_path / path.name)) for path in files]
    assert digest_files(copies) == truth(copies)


def test_paths_may_be_text_and_may_be_given_twice(files: list[Path]) -> None:
    texts = [str(path) for path in files]
    assert digest_files(texts + texts) == {str(path): found for path, found in truth(files).items()}


def test_b3sum_says_the_same(files: list[Path]) -> None:
    if not shutil.which("b3sum"):
        pytest.skip("b3sum is not installed")
    said = subprocess.run(["b3sum", *files], capture_output=True, text=True, check=True).stdout
    found = digest_files(files)
    assert said == "".join(f"{found[path]}  {path}\n" for path in files)


def test_a_large_file_is_never_in_memory_as_a_whole(files: list[Path], tmp_path: Path) -> None:
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(600 * MIB)
    os.utime(big, LONG_AGO)
    code = (
        "import sys; from ctcore.store.digest import digest_files; digest_files([sys.argv[1]]);"
        "print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1])"
    )
    said = subprocess.run([sys.executable, "-c", code, str(big)], capture_output=True, check=True, cwd=root())
    assert int(said.stdout) < 150 * 1024


def root() -> Path:
    return Path(digest.__file__).parents[2]


def test_all_missing_and_unreadable_files_are_named_at_once(files: list[Path], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    wrong = [tmp_path / "a", tmp_path, tmp_path / "pipe", tmp_path / "b"]
    with pytest.raises(InputError) as error:
        digest_files([files[0], *wrong, files[7]])
    assert all(f"{path}: " in str(error.value) for path in wrong)
    assert "4 files" in str(error.value) and str(files[0]) not in str(error.value)


def test_a_missing_file_is_told_before_the_large_ones_are_read(files: list[Path], tmp_path: Path) -> None:
    seen: list[int] = []
    with pytest.raises(InputError, match="missing"):
        digest_files([*files[7:9], tmp_path / "none"], on_bytes=seen.append)
    assert sum(seen) == 0


@pytest.mark.parametrize("size", [100, 2 * MIB, 80 * MIB])
@pytest.mark.parametrize("age", [1, 1_000_000])
def test_a_file_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, size: int, age: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The change is made in the middle: after the first bytes are read or mapped, before the last look."""
    path = tmp_path / "changing"
    path.write_bytes(bytes(size))
    set_age(path, age)
    monkeypatch.setattr(digest, "blake3", _writing_to(path))
    with pytest.raises(InputError, match=r"changing: changed while it was read"):
        digest_files([path])


def _writing_to(path: Path) -> type:
    """A BLAKE3 whose first update comes with a write of one byte to the file."""

    class Writing:
        AUTO = blake3.AUTO

        def __init__(self, data: bytes = b"", max_threads: int = 1) -> None:
            self.real = blake3(data, max_threads=max_threads)

        def update(self, data: bytes) -> None:
            with path.open("r+b") as file:
                file.write(b"!")
            self.real.update(data)

        def hexdigest(self) -> str:
            return self.real.hexdigest()

    return Writing


def test_a_file_cut_while_read_does_not_end_the_process(tmp_path: Path) -> None:
    path = tmp_path / "cut"
    with path.open("wb") as file:
        file.truncate(300 * MIB)
    os.utime(path, LONG_AGO)
    with pytest.raises(InputError, match="changed while it was read"):
        digest_files([path], on_bytes=lambda _: os.truncate(path, 100))


@pytest.mark.parametrize("age", [0, 10])
def test_only_a_file_at_rest_is_mapped(tmp_path: Path, age: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mapped file that its writer truncates ends the process with SIGBUS."""
    path, mapped, real = tmp_path / "big", [], mmap.mmap
    path.write_bytes(bytes(65 * MIB))
    set_age(path, age)
    monkeypatch.setattr(mmap, "mmap", lambda *a, **b: mapped.append(a) or real(*a, **b))
    digest_files([path])
    assert bool(mapped) == bool(age)


class Memory:
    """Remembers in a dict, as the catalog does in a table."""

    def __init__(self) -> None:
        self.kept: dict[Path, tuple[Signature, str]] = {}

    def lookup(self, wanted: Mapping[Path, Signature]) -> dict[Path, str]:
        return {p: self.kept[p][1] for p, s in wanted.items() if p in self.kept and self.kept[p][0] == s}

    def remember(self, found: Mapping[Path, tuple[Signature, str]]) -> None:
        self.kept.update(found)


def test_an_unchanged_file_is_not_read_twice(files: list[Path]) -> None:
    memory, first, again = Memory(), [], []
    found = digest_remembered(files, memory, on_bytes=first.append)
    assert found == {path: (known, Signature.of(path)) for path, known in truth(files).items()}
    assert digest_remembered(files, memory, on_bytes=again.append) == found
    assert sum(first) and not again


def test_a_touched_file_is_read_again(tmp_path: Path) -> None:
    path, memory = tmp_path / "a", Memory()
    path.write_bytes(b"one")
    os.utime(path, LONG_AGO)
    digest_remembered([path], memory)
    path.write_bytes(b"two")
    os.utime(path, (1_600_000_001, 1_600_000_001))
    assert digest_remembered([path], memory)[path][0] == blake3(b"two").hexdigest()


def test_a_change_within_the_clocks_granularity_cannot_hide(tmp_path: Path) -> None:
    """Same size, inode and mtime, and the same tick for the ctime: that the digest was not remembered saves us."""
    path, memory = tmp_path / "a", Memory()
    path.write_bytes(b"one")
    before = digest_remembered([path], memory)[path]
    seen = path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    after = digest_remembered([path], memory)[path]
    assert before[1] == after[1] and before[0] != after[0]
    assert before[1].ctime_ns == 0, "too young to be known by its ctime: whoever keeps it reads the file once more"
    set_age(path, 3)
    time.sleep(0.03)
    digest_remembered([path], memory)
    assert path in memory.kept


def test_what_was_read_before_a_failure_is_remembered(files: list[Path], tmp_path: Path) -> None:
    memory, large = Memory(), tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(65 * MIB)
    os.utime(large, LONG_AGO)

    def cut(done: int) -> None:
        if done > MIB:
            os.truncate(large, 1)

    with pytest.raises(InputError):
        digest_remembered([files[1], large], memory, on_bytes=cut)
    assert set(memory.kept) == {files[1]}


def test_checksums_are_those_of_hashlib(files: list[Path]) -> None:
    data = files[6].read_bytes()
    assert checksum_file(files[6], "md5") == hashlib.md5(data).hexdigest()
    assert checksum_file(files[6], "sha256") == hashlib.sha256(data).hexdigest()
    assert checksum_file(files[6], "blake3") == blake3(data).hexdigest()


def test_an_unknown_checksum_or_a_missing_file_is_named(files: list[Path], tmp_path: Path) -> None:
    with pytest.raises(Usage, match="md5, sha256, blake3"):
        checksum_file(files[0], "crc32")
    with pytest.raises(InputError, match="none: missing"):
        checksum_file(tmp_path / "none", "md5")
