"""Signs of life of what works on keys."""

import os
import time
from pathlib import Path

import pytest

from ctcore.projects.heartbeats import DEAD_S, FOLDER, is_silent, start_heartbeat


def test_who_gave_a_sign_lives_until_it_is_too_old(tmp_path: Path) -> None:
    start_heartbeat(tmp_path, "host:7")
    (sign,) = [path for path in (tmp_path / FOLDER).iterdir() if not path.name.startswith(".")]
    assert not is_silent(tmp_path, "host:7")
    last = sign.stat().st_mtime
    os.utime(sign, (last - DEAD_S + 60,) * 2)
    assert not is_silent(tmp_path, "host:7")
    os.utime(sign, (last - DEAD_S - 60,) * 2)
    assert is_silent(tmp_path, "host:7")


def test_who_never_gave_a_sign_is_not_taken_for_dead(tmp_path: Path) -> None:
    assert not is_silent(tmp_path, "host:8")


@pytest.mark.parametrize("off_s", [-2 * DEAD_S, 2 * DEAD_S])
def test_a_hosts_clock_that_is_wrong_kills_and_revives_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, off_s: float
) -> None:
    start_heartbeat(tmp_path, "host:5")
    sign = tmp_path / FOLDER / "host~5"
    right = time.time
    monkeypatch.setattr(time, "time", lambda: right() + off_s)
    assert not is_silent(tmp_path, "host:5")
    os.utime(sign, (sign.stat().st_mtime - DEAD_S - 60,) * 2)
    assert is_silent(tmp_path, "host:5")


def test_signs_of_long_ago_are_cleared_away(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    for name, age in (("old", 40), ("new", 1)):
        (sign := tmp_path / FOLDER / name).touch()
        os.utime(sign, (sign.stat().st_mtime - age * 86400,) * 2)
    start_heartbeat(tmp_path, "host:9")
    assert sorted(os.listdir(tmp_path / FOLDER)) == ["host~9", "new"]
