"""The witness: how far the chain of events was."""

from pathlib import Path

import pytest

from ctcore.catalog.witness import NAME, LastEvent, Witness
from ctcore.store.store import Store


@pytest.fixture
def witness(tmp_path: Path) -> Witness:
    store = Store(tmp_path / "store")
    store.ensure()
    return Witness(store.root / NAME)


def test_what_is_written_is_seen_and_takes_one_line(witness: Witness) -> None:
    assert witness.read() is None
    for last in (LastEvent(7, "ab" * 32, 0), LastEvent(123_456, "0f" * 32, 10**15)):
        witness.write(last)
        assert witness.read() == last
    assert witness.path.read_bytes().count(b"\n") == 1


@pytest.mark.parametrize("at", [3, 20, 60, 84, 104])
def test_one_wrong_byte_is_seen(witness: Witness, at: int) -> None:
    witness.write(LastEvent(7, "ab" * 32, 12))
    damaged = bytearray(witness.path.read_bytes())
    damaged[at] ^= 1
    witness.path.write_bytes(damaged)
    assert witness.read() is None


def test_half_of_it_is_nothing(witness: Witness) -> None:
    witness.write(LastEvent(7, "ab" * 32, 12))
    witness.path.write_bytes(witness.path.read_bytes()[:40])
    assert witness.read() is None


def test_a_folder_where_the_store_should_be_gets_none(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    witness = Witness(tmp_path / "store" / NAME)
    witness.write(LastEvent(7, "ab" * 32, 12))
    assert not witness.is_possible and not witness.path.exists()
