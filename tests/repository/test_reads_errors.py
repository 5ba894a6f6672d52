"""reads_qc at the door: each way in which FASTQ files are damaged or mixed up is refused with a way out."""

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ct_assets.steps._fastq import tally_pairs
from ct_assets.steps.reads import reads_qc
from ctcore.errors import InputError
from ctcore.step import Call, Step

READS = Path(__file__).parents[2] / "examples" / "three_people" / "reads"
FIRST, SECOND = (READS / f"HG00100-3815246_R{mate}.fastq.gz" for mate in (1, 2))
OTHER = READS / "HG00100-6503965_R2.fastq.gz"

Write = Callable[[str, bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(name: str, raw: bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(raw)
        return path

    return written


def lines(path: Path) -> list[bytes]:
    return gzip.decompress(path.read_bytes()).splitlines(keepends=True)


def zipped(text: bytes) -> bytes:
    """The same bytes in every process: gzip's clock would make other names of tests of them in each."""
    return gzip.compress(text, mtime=0)


def fastq(*reads: tuple[str, str, str]) -> bytes:
    return zipped("".join(f"@{name}\n{bases}\n+\n{quality}\n" for name, bases, quality in reads).encode())


def refused(first: Path, second: Path, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        tally_pairs(first, second)
    assert str(first) in str(caught.value) or str(second) in str(caught.value)


def test_a_file_cut_off_anywhere_is_refused(write: Write) -> None:
    whole = SECOND.read_bytes()
    for size in (1, 5, 18, len(whole) // 2, len(whole) - 9, len(whole) - 1):
        refused(
            FIRST,
            write("cut.fastq.gz", whole[:size]),
            "cut.fastq.gz is (truncated|neither gzip nor FASTQ|damaged)",
        )


def test_one_wrong_byte_in_a_compressed_file_is_refused(write: Write) -> None:
    raw = bytearray(FIRST.read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    refused(write("bad.fastq.gz", bytes(raw)), SECOND, "bad.fastq.gz")


def test_a_wrong_checksum_at_the_very_end_is_refused(write: Write) -> None:
    raw = bytearray(FIRST.read_bytes())
    raw[-8] ^= 1
    refused(
        write("bad.fastq.gz", bytes(raw)),
        SECOND,
        r"bad.fastq.gz is damaged: CRC check failed.*fetch it again",
    )


def test_what_follows_the_gzip_stream_is_refused(write: Write) -> None:
    refused(write("more.fastq.gz", FIRST.read_bytes() + b"garbage"), SECOND, "more.fastq.gz is damaged")


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "is empty"),
        (zipped(b""), "have no reads"),
        (b"\x89PNG\r\n", "is neither gzip nor FASTQ"),
        (b"<html>not found</html>", "is neither gzip nor FASTQ"),
        (zipped(b"chrom\tpos\n1\t2\n3\t4\n5\t6\n"), "record 1 is not FASTQ"),
        (fastq(("a", "ACGT", "III")), "record 1 has 4 bases and 3 qualities"),
        (fastq(("a", "", "")), "record 1 has 0 bases and 0 qualities"),
        (fastq(("a", "AC!T", "IIII")), "record 1 has letters that are not bases: 'AC!T'"),
        (fastq(("a", "ACGT", "II I")), "record 1 has qualities outside of ! to ~"),
        (zipped(b"@a\nACGT\n"), "record 1 has 2 of 4 lines: the file is cut off"),
    ],
)
def test_what_is_not_fastq_is_refused(write: Write, raw: bytes, said: str) -> None:
    refused(write("one.gz", raw), write("two.gz", raw), said)


def test_swapped_mates_are_refused() -> None:
    refused(SECOND, FIRST, "exchange fastq_1 and fastq_2 in the sheet")


def test_swapped_mates_are_seen_in_illumina_names(write: Write) -> None:
    one, two = write("1.gz", fastq(("a 1:N:0:AC", "A", "I"))), write("2.gz", fastq(("a 2:N:0:AC", "C", "I")))
    tally_pairs(one, two)
    refused(two, one, "exchange fastq_1 and fastq_2")


def test_mates_of_another_library_are_refused() -> None:
    refused(FIRST, OTHER, "are not mates: record 1 is 'ERR156632.10508568' in one")


def test_one_file_given_twice_is_refused(write: Write) -> None:
    plain = fastq(("a", "ACGT", "IIII"), ("b", "GGGG", "IIII"))
    refused(write("one.gz", plain), write("two.gz", plain), "hold the same reads")


@pytest.mark.parametrize("short", ["first", "second"])
def test_mates_of_unequal_number_are_refused(write: Write, short: str) -> None:
    cut = write("short.gz", gzip.compress(b"".join(lines(FIRST if short == "first" else SECOND)[:-4])))
    pair = (cut, SECOND) if short == "first" else (FIRST, cut)
    refused(*pair, "short.gz ends after 114 reads")


def test_a_read_that_is_out_of_step_is_named_by_its_record(write: Write) -> None:
    mixed = lines(SECOND)
    mixed[8:16] = mixed[12:16] + mixed[8:12]
    refused(FIRST, write("mixed.gz", gzip.compress(b"".join(mixed))), "record 3 is")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    refused(tmp_path / "gone.gz", SECOND, "gone.gz cannot be read: No such file")


def test_line_ends_streams_and_blanks_do_not_change_reads(write: Write) -> None:
    text = b"".join(lines(FIRST))
    half = len(b"".join(lines(FIRST)[:40]))
    same = [
        text,
        gzip.compress(text.replace(b"\n", b"\r\n")),
        gzip.compress(text[:half]) + gzip.compress(text[half:]),
        gzip.compress(text + b"\n\n"),
    ]
    known, _ = tally_pairs(FIRST, SECOND)
    for number, raw in enumerate(same):
        assert tally_pairs(write(f"{number}.fastq", raw), SECOND)[0] == known


def test_nothing_is_written_of_a_damaged_file(write: Write, tmp_path: Path) -> None:
    declared: Step = reads_qc.ct_step  # type: ignore[attr-defined]
    folder = tmp_path / "artifact"
    folder.mkdir()
    cut = write("cut.gz", SECOND.read_bytes()[:-20])
    outputs = {name: output.file for name, output in declared.outputs.items()}
    with pytest.raises(InputError):
        reads_qc(Call("A1", "assay", folder, outputs, files={"fastq_1": FIRST, "fastq_2": cut}))
    assert list(folder.iterdir()) == []


READ = st.integers(1, 40).flatmap(
    lambda size: st.tuples(
        st.text("ACGTN", min_size=size, max_size=size), st.text("!+5?I~", min_size=size, max_size=size)
    )
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(READ, min_size=1, max_size=30))
def test_numbers_are_those_of_a_plain_count(write: Write, reads: list[tuple[str, str]]) -> None:
    named = [(f"r{number}", *read) for number, read in enumerate(reads)]
    mates = [(f"r{number}", "ACGTA", "IIIII") for number in range(len(reads))]
    if all(bases == "ACGTA" for bases, _ in reads):
        return
    tally, _ = tally_pairs(write("1.gz", fastq(*named)), write("2.gz", fastq(*mates)))
    text, quality = ("".join(part) for part in zip(*reads, strict=True))
    assert (tally.reads, tally.bases) == (len(reads), len(text))
    assert (tally.gc, tally.n) == (text.count("G") + text.count("C"), text.count("N"))
    assert tally.q30 == sum(ord(letter) - 33 >= 30 for letter in quality)
    longest = max(len(bases) for bases, _ in reads)
    assert tally.by_cycle == [
        (
            sum(len(bases) > cycle for bases, _ in reads),
            sum(ord(q[cycle]) - 33 for _, q in reads if len(q) > cycle),
        )
        for cycle in range(longest)
    ]
