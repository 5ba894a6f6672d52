"""What a call printed, as the store keeps it."""

import gzip
from pathlib import Path

from ctcore.store.call_log import END, kept_lines, pack


def kept(folder: Path, packed: bytes | None) -> Path:
    assert packed is not None
    (place := folder / "kept.gz").write_bytes(packed)
    return place


def test_a_log_comes_back_and_is_the_same_bytes_at_any_time(tmp_path: Path) -> None:
    (log := tmp_path / "log").write_bytes(b"one\ntwo \xff\n")
    first = pack(log)
    assert first == pack(log)
    assert list(kept_lines(kept(tmp_path, first))) == ["one\n", "two \ufffd\n"]


def test_of_a_long_log_beginning_and_end_are_kept(tmp_path: Path) -> None:
    (log := tmp_path / "log").write_bytes(b"a" * END + b"b" * 3000 + b"c" * END)
    text = gzip.decompress(pack(log) or b"")
    assert text.startswith(b"a" * END) and text.endswith(b"c" * END) and b"b" not in text[END : -END - 100]
    assert "… 3,000 bytes are left out here …".encode() in text
    log.write_bytes(b"d" * 2 * END)
    assert gzip.decompress(pack(log) or b"") == b"d" * 2 * END


def test_nothing_printed_and_a_log_that_went_are_none(tmp_path: Path) -> None:
    (tmp_path / "log").touch()
    assert pack(tmp_path / "log") is None and pack(tmp_path / "gone") is None


def test_a_damaged_log_says_so_behind_what_can_be_read(tmp_path: Path) -> None:
    (log := tmp_path / "log").write_text("".join(f"line {n}\n" for n in range(9999)))
    place = kept(tmp_path, (pack(log) or b"")[:-2000])
    lines = list(kept_lines(place))
    assert lines[0] == "line 0\n" and f"({place} is damaged" in lines[-1]
