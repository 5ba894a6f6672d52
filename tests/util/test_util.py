"""Files written whole, times, words for disks, garbage collection, processes, progress."""

import errno
import gc
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ctcore.util import clock, progress
from ctcore.util.atomic_file import write_json, write_whole
from ctcore.util.disk_errors import disk_error, free_at, way_out
from ctcore.util.gc import collect_from_now, without_collecting
from ctcore.util.processes import end_below, started_at


def test_a_file_is_whole_or_the_old_one(tmp_path: Path) -> None:
    place = write_json(tmp_path / "new" / "record.json", {"a": [1]})
    assert place.read_text() == '{"a": [1]}'
    stop = threading.Event()
    seen: set[bytes] = set()

    def read() -> None:
        while not stop.is_set():
            seen.add(place.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    contents = [bytes([letter]) * 200_000 for letter in b"abc"] * 20
    for content in contents:
        write_whole(place, content)
    stop.set()
    reader.join()
    assert seen <= {b'{"a": [1]}', *contents}
    assert os.listdir(place.parent) == ["record.json"]


def test_a_file_that_cannot_be_put_there_leaves_no_part(tmp_path: Path) -> None:
    (tmp_path / "taken" / "inside").mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        write_whole(tmp_path / "taken", b"text")
    assert os.listdir(tmp_path) == ["taken"]


def test_a_file_is_written_with_its_rights(tmp_path: Path) -> None:
    assert write_whole(tmp_path / "private", b"", mode=0o600).stat().st_mode & 0o777 == 0o600


def test_times_are_utc_with_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    assert clock.utc(0) == "1970-01-01T00:00:00.000Z"
    assert clock.utc(1_767_225_599.9994) == "2025-12-31T23:59:59.999Z"
    assert clock.today() == clock.now()[:10]
    assert 59 < clock.seconds_since(clock.utc(time.time() - 60)) < 62
    monkeypatch.undo()
    time.tzset()


def test_a_full_disk_is_said_with_its_place_and_what_is_needed(tmp_path: Path) -> None:
    said = disk_error(tmp_path / "a", OSError(errno.ENOSPC, "No space left on device"), needed=5_000_000)
    assert said is not None
    assert said.filename == str(tmp_path / "a")
    assert "the disk is full" in str(said) and "5,000,000 are needed" in str(said)


def test_a_library_that_only_quotes_the_number_is_understood(tmp_path: Path) -> None:
    said = disk_error(tmp_path, RuntimeError("could not write: [Errno 30] Read-only"))
    assert said is not None and said.errno == errno.EROFS
    assert disk_error(tmp_path, RuntimeError("[Errno 2] nothing there")) is None
    assert way_out(OSError(errno.EDQUOT, "")) == "the quota is used up: remove files there, or ask for a larger quota"
    assert way_out(OSError(errno.ENOENT, "")) is None


@pytest.mark.parametrize("number", [errno.ESTALE, errno.ENOTCONN])
def test_a_disk_that_went_away_is_said_with_its_place(tmp_path: Path, number: int) -> None:
    said = disk_error(tmp_path / "a", OSError(number, os.strerror(number)))
    assert said is not None and (said.filename, said.strerror) == (
        str(tmp_path / "a"),
        "its disk went away: have it mounted again",
    )


def test_an_unclear_error_on_a_full_disk_is_its_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unclear = OSError("could not write the footer")
    assert disk_error(tmp_path, unclear) is None
    monkeypatch.setattr("ctcore.util.disk_errors.free_at", lambda _: 4096)
    said = disk_error(tmp_path, unclear)
    assert said is not None and "the disk is full: free space there, or use a larger disk (4,096 bytes" in str(said)


def test_free_space_of_a_missing_place_is_that_above(tmp_path: Path) -> None:
    free = free_at(tmp_path / "not" / "yet")
    assert free is not None and free > 0


def test_the_collector_is_off_inside_and_as_before_afterwards() -> None:
    @without_collecting
    def inside() -> bool:
        return gc.isenabled()

    assert not inside() and gc.isenabled()
    gc.disable()
    try:
        assert not inside() and not gc.isenabled()
    finally:
        gc.enable()

    @without_collecting
    def failing() -> None:
        raise ValueError

    with pytest.raises(ValueError):
        failing()
    assert gc.isenabled()


def test_all_processes_below_one_are_ended() -> None:
    inner = "import subprocess, sys; subprocess.Popen(['sleep', '60']); print('up', flush=True); input()"
    outer = f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {inner!r}], stdin=-1); p.wait()"
    with subprocess.Popen([sys.executable, "-c", outer], stdout=subprocess.PIPE, stdin=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"up\n"
        end_below(process.pid)
        process.wait(5)  # it waited for its child, which is gone
        assert process.returncode == 0
        assert process.stdout.read() == b""  # sleep had this end, too, and is gone


def test_a_child_ends_with_the_process_that_waits_for_it() -> None:
    """Whoever looks for a killed worker takes its work for ended: so it has to be."""
    work = "lambda: (print(os.getpid(), flush=True), time.sleep(60))"
    program = f"import os, time; from ctcore.util.processes import run_in_child; run_in_child({work})"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert started_at(child) is not None
        parent.kill()
    deadline = time.monotonic() + 20
    while started_at(child) is not None:
        assert time.monotonic() < deadline, "it goes on alone"
        time.sleep(0.05)


def test_progress_reaches_who_listens_and_nobody_afterwards() -> None:
    heard: list[object] = []
    progress.tell("nobody listens")
    with progress.listening(heard.append), progress.reading(heard.append):
        progress.tell(1)
        with progress.listening(lambda one: heard.append(("inner", one))):
            progress.tell(2)
        progress.note("it goes on")
    progress.tell(3)
    progress.note("too late")
    assert heard == [1, ("inner", 2), "it goes on"]


def test_what_imports_left_is_not_looked_through_again() -> None:
    gc.disable()
    collect_from_now()
    try:
        assert gc.isenabled() and gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()


def test_a_process_without_children_looks_at_no_others() -> None:
    program = """
import os, subprocess
from ctcore.util import processes
looked = []
processes._children = lambda real=processes._children: looked.append(1) or real()
processes.end_below(os.getpid())
assert not looked
with subprocess.Popen(["sleep", "60"]) as child:
    processes.end_below(os.getpid())
assert looked and child.returncode == -9
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=100)
