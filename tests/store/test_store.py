"""Claims on ctcore.store.store: what is published is whole, read-only and found again, whatever happens."""

import errno
import json
import os
import random
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import ctcore
from ctcore.errors import StoreError
from ctcore.store import store as store_module
from ctcore.store.digest import Signature
from ctcore.store.manifest import Damage, ExpectedArtifact, manifest_of
from ctcore.store.store import PublishedArtifact, Store, is_alive

KEY = "0123456789abcdef" * 4
OTHER = "fedcba9876543210" * 4
CONTENT = {"a.txt": b"one\n", "d/b.bin": b"two\n" * 50_000}
NODE = ("reads_qc", "A01")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def staged(store: Store, content: dict[str, bytes] = CONTENT, key: str = KEY) -> Path:
    folder = store.stage(*NODE, key)
    for name, data in content.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def publish(
    store: Store, content: dict[str, bytes] = CONTENT, key: str = KEY, same_as: Path | None = None
) -> PublishedArtifact:
    return store.publish(staged(store, content, key), *NODE, key, {"facts": {"n": 1}}, list(content), same_as)


def damage(published: PublishedArtifact, name: str = "a.txt") -> None:
    path = published.folder / name
    path.chmod(0o644)
    path.write_bytes(b"0ne\n")


def leftovers(store: Store) -> list[str]:
    return [name for name in os.listdir(store.staging) if not name.startswith(".")]


def test_a_published_artifact_has_its_bytes_and_sidecar(store: Store) -> None:
    made = publish(store)
    assert store.find(*NODE, KEY) == made
    assert made.folder == store.root / "reads_qc" / "A01" / KEY[:16]
    assert {name: (made.folder / name).read_bytes() for name in CONTENT} == CONTENT
    assert made.data_version == manifest_of(made.folder).data_version
    assert store.check(made.folder, made.manifest, deep=True) == []
    assert leftovers(store) == []


def test_the_sidecar_tells_all_without_a_catalog(store: Store) -> None:
    made = publish(store)
    side = store.sidecar(made.folder)
    assert side["facts"] == {"n": 1}
    assert side["store"]["data_version"] == made.data_version
    assert (side["store"]["asset"], side["store"]["partition"], side["store"]["key"]) == (*NODE, KEY)
    assert side["store"]["files"]["a.txt"]["size"] == 4


def test_neither_place_nor_sidecar_enters_the_data_version(tmp_path: Path) -> None:
    one, other = Store(tmp_path / "one"), Store(tmp_path / "other")
    first = publish(one)
    second = other.publish(staged(other), "x", "y", OTHER, {"at": 2}, list(CONTENT))
    assert first.data_version == second.data_version


def test_published_files_and_folders_are_read_only(store: Store) -> None:
    made = publish(store)
    for folder, _, files in os.walk(made.folder):
        assert stat.S_IMODE(os.stat(folder).st_mode) == 0o555
        assert {stat.S_IMODE(os.stat(os.path.join(folder, name)).st_mode) for name in files} == {0o444}


def test_scratch_is_not_published(store: Store) -> None:
    folder = staged(store)
    (folder / ".scratch").mkdir()
    (folder / ".scratch" / "big").touch()
    (folder / ".scratch").chmod(0o500)
    made = store.publish(folder, *NODE, KEY, {}, list(CONTENT))
    assert not (made.folder / ".scratch").exists()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: (f / "a.txt").unlink(), "declared but not written: a.txt"),
        (lambda f: (f / "d/c.tmp").touch(), "written but not declared: d/c.tmp"),
        (lambda f: (f / "e").mkdir(), "written but not declared: e/"),
        (lambda f: (f / "ln").symlink_to("a.txt"), "not a regular file: ln"),
        (
            lambda f: (f / "a.txt").unlink() or (f / "a.txt").symlink_to("/etc/hosts"),
            "not a regular file: a.txt",
        ),
    ],
)
def test_exactly_the_declared_files_must_be_there(store: Store, spoil: Callable[[Path], object], said: str) -> None:
    folder = staged(store)
    spoil(folder)
    with pytest.raises(StoreError, match=said):
        store.publish(folder, *NODE, KEY, {}, list(CONTENT))
    assert store.find(*NODE, KEY) is None and not (store.root / "reads_qc").exists()
    assert folder.exists()


@pytest.mark.parametrize("names", [[], ["../a.txt"], ["ct.json"], ["MANIFEST.b3"]])
def test_outputs_have_inert_names_of_their_own(store: Store, names: list[str]) -> None:
    with pytest.raises(StoreError):
        store.publish(staged(store), *NODE, KEY, {}, names)


@pytest.mark.parametrize("node", [("..", "a"), ("a", "../b"), ("a", ".b"), ("a/b", "c"), ("", "a"), ("a", "b\n")])
def test_a_node_cannot_lead_out_of_the_store(store: Store, node: tuple[str, str]) -> None:
    with pytest.raises(StoreError, match="no name"):
        store.stage(*node, KEY)
    with pytest.raises(StoreError, match="hexadecimal"):
        store.find("a", "b", "../../../../etc")


def test_only_a_staged_folder_is_published(store: Store, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(StoreError, match=r"Store\.stage"):
        store.publish(tmp_path / "mine", *NODE, KEY, {}, ["a"])
    assert (tmp_path / "mine").exists()


def test_a_hard_link_to_elsewhere_becomes_its_own_file(store: Store, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.write_bytes(b"raw")
    folder = store.stage(*NODE, KEY)
    os.link(raw, folder / "a")
    made = store.publish(folder, *NODE, KEY, {}, ["a"])
    raw.write_bytes(b"new")
    assert (made.folder / "a").read_bytes() == b"raw" and os.access(raw, os.W_OK)
    assert raw.stat().st_mode & 0o200


def test_the_first_making_of_a_key_is_kept(store: Store) -> None:
    first = publish(store)
    inode = (first.folder / "a.txt").stat().st_ino
    again, other = publish(store), publish(store, {"a.txt": b"two"})
    assert again.folder == other.folder == first.folder
    assert again.discarded == again.data_version == first.data_version == other.data_version
    assert other.discarded not in (None, first.data_version)
    assert (first.folder / "a.txt").stat().st_ino == inode and leftovers(store) == []


@pytest.mark.parametrize(
    "harm",
    [
        damage,
        lambda made: made.folder.chmod(0o755) or (made.folder / "a.txt").unlink(),
        lambda made: made.folder.chmod(0o755) or (made.folder / "MANIFEST.b3").unlink(),
        lambda made: made.folder.chmod(0o755) or (made.folder / "ct.json").rename(made.folder / "x"),
        lambda made: (made.folder / "ct.json").chmod(0o644) or (made.folder / "ct.json").write_text("{"),
        lambda made: made.folder.chmod(0o755) or (made.folder / "extra").touch(),
    ],
)
def test_a_damaged_artifact_is_replaced(store: Store, harm: Callable[[PublishedArtifact], object]) -> None:
    first = publish(store)
    harm(first)
    made = publish(store)
    assert made.discarded is None and made.data_version == first.data_version
    assert store.check(made.folder, made.manifest, deep=True) == [] and leftovers(store) == []


def test_equal_files_of_an_earlier_making_share_their_bytes(store: Store) -> None:
    first = publish(store)
    second = publish(store, CONTENT | {"a.txt": b"new"}, OTHER, same_as=first.folder)
    assert (second.folder / "d/b.bin").samefile(first.folder / "d/b.bin")
    assert not (second.folder / "a.txt").samefile(first.folder / "a.txt")
    assert store.check(second.folder, second.manifest, deep=True) == []
    store.remove(first.folder)
    assert store.check(second.folder, second.manifest, deep=True) == []


def test_damage_is_not_inherited_from_an_earlier_making(store: Store, tmp_path: Path) -> None:
    first = publish(store)
    damage(first)
    second = publish(store, CONTENT, OTHER, same_as=first.folder)
    assert (second.folder / "a.txt").read_bytes() == CONTENT["a.txt"]
    assert publish(store, CONTENT, "1" * 64, same_as=tmp_path / "nowhere").data_version == first.data_version


def test_publishing_again_after_a_crash_at_any_step_is_safe(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop at each fsync and rename in turn, as a crash would, and do the same call again."""
    calls = 0
    for stop_at in range(100):
        folder, key = staged(store, key=f"{stop_at:064x}"[::-1]), f"{stop_at:064x}"[::-1]
        calls = 0

        def stopping(real: Callable[..., object], stop_at: int = stop_at) -> Callable[..., object]:
            def call(*arguments: object) -> object:
                nonlocal calls
                calls += 1
                if calls > stop_at:
                    raise KeyboardInterrupt
                return real(*arguments)

            return call

        with monkeypatch.context() as patch:
            for name in ("sync", "_renamed", "manifest_of"):
                patch.setattr(store_module, name, stopping(getattr(store_module, name)))
            try:
                store.publish(folder, *NODE, key, {}, list(CONTENT))
            except KeyboardInterrupt:
                found = store.find(*NODE, key)
                assert found is None or store.check(found.folder, found.manifest, deep=True) == []
            else:
                break
        made = store.publish(folder, *NODE, key, {}, list(CONTENT))
        assert store.check(made.folder, made.manifest, deep=True) == []
        assert stat.S_IMODE(made.folder.stat().st_mode) == 0o555 and leftovers(store) == []
    assert calls > 10


def test_a_folder_without_manifest_or_sidecar_is_not_found(store: Store) -> None:
    assert store.find(*NODE, KEY) is None
    store.folder(*NODE, KEY).mkdir(parents=True)
    assert store.find(*NODE, KEY) is None
    (store.folder(*NODE, KEY) / "ct.json").write_text("{}")
    assert store.find(*NODE, KEY) is None
    with pytest.raises(StoreError, match="damaged"):
        (store.folder(*NODE, KEY) / "ct.json").write_text("{")
        store.sidecar(store.folder(*NODE, KEY))


def test_a_manifest_that_the_sidecar_does_not_know_is_not_found(store: Store) -> None:
    made = publish(store)
    (made.folder / "MANIFEST.b3").chmod(0o644)
    (made.folder / "MANIFEST.b3").write_text(made.manifest.text().replace("a.txt", "c.txt"))
    assert store.find(*NODE, KEY) is None


def test_a_crash_right_after_the_rename_is_made_good(store: Store) -> None:
    folder = staged(store)
    made = store.publish(folder, *NODE, KEY, {}, list(CONTENT))
    made.folder.chmod(0o755)
    assert store.publish(folder, *NODE, KEY, {}, list(CONTENT)) == made
    assert stat.S_IMODE(made.folder.stat().st_mode) == 0o555


def test_two_keys_that_begin_alike_are_not_confused(store: Store) -> None:
    publish(store)
    with pytest.raises(StoreError, match="holds call"):
        store.find(*NODE, KEY[:16] + "0" * 48)


def test_a_sidecar_that_is_not_json_publishes_nothing(store: Store) -> None:
    with pytest.raises(ValueError):
        store.publish(staged(store), *NODE, KEY, {"facts": float("nan")}, list(CONTENT))
    assert store.find(*NODE, KEY) is None


def test_damage_is_told_of_many_artifacts_at_once(store: Store) -> None:
    makings = [publish(store, key=f"{number:016x}") for number in range(3)]
    damage(makings[1])
    expected = [
        ExpectedArtifact(m.folder, m.manifest, {name: Signature.of(m.folder / name) for name in m.manifest.files})
        for m in makings
    ]
    found = store.check_many(expected, deep=True)
    assert [[d.file for d in damages] for damages in found] == [[], ["a.txt"], []]
    assert found[1][0].problem.startswith("changed (digest ")
    store.remove(makings[2].folder)
    assert store.check(makings[2].folder, makings[2].manifest)[0] == Damage("a.txt", "gone")


def test_removing_takes_a_read_only_artifact_and_nothing_else(store: Store, tmp_path: Path) -> None:
    kept, made = publish(store, key=OTHER), publish(store)
    store.remove(made.folder)
    store.remove(made.folder)
    assert store.find(*NODE, KEY) is None and store.find(*NODE, OTHER) == kept
    assert leftovers(store) == []
    for place in (store.root, store.root / "reads_qc", tmp_path / "a" / "b" / "c", kept.folder / "d"):
        with pytest.raises(StoreError, match="nothing was removed"):
            store.remove(place)


def test_a_process_that_ended_and_was_not_waited_for_is_dead() -> None:
    """In a container whose first process waits for nobody, it stays a corpse."""
    child = subprocess.Popen(["sleep", "60"])
    assert is_alive(child.pid)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not is_alive(child.pid)
    child.wait()


def test_sweeping_takes_dead_remains_and_spares_the_living(store: Store) -> None:
    mine = staged(store)
    script = "import sys; from ctcore.store.store import Store; from pathlib import Path;"
    script += "print(Store(Path(sys.argv[1])).stage('a', 'b', '0' * 16))"
    left = Path(run_python(script, str(store.root)).strip())
    (left / "sub").mkdir()
    (left / "sub" / "part").touch()
    (left / "sub").chmod(0o555)
    assert store.sweep(3600) == [left] and not left.exists()
    assert mine.exists() and store.sweep(0) == []


def test_folders_of_other_hosts_are_swept_by_their_last_touch(store: Store) -> None:
    store.ensure()
    foreign = store.staging / "a~b~0123456789abcdef~other-1~1~00000000"
    (foreign / "d").mkdir(parents=True)
    (foreign / "d" / "growing").touch()
    for folder in (foreign, foreign / "d"):
        os.utime(folder, (1, 1))
    assert store.sweep(60) == []
    os.utime(foreign / "d" / "growing", (1, 1))
    assert store.sweep(60) == [foreign]


def run_python(script: str, *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout


ROOT = Path(ctcore.__file__).parents[1]

RACER = """
import sys
from pathlib import Path
from ctcore.store.store import Store
store, mine = Store(Path(sys.argv[1])), sys.argv[2].encode()
for line in sys.stdin:
    key = line.strip()
    staged = store.stage("a", "p", key)
    (staged / "out").write_bytes(mine * 1000)
    made = store.publish(staged, "a", "p", key, {}, ["out"])
    print(made.data_version, made.discarded, flush=True)
"""


@pytest.mark.parametrize("damaged", [False, True])
def test_of_two_processes_that_publish_one_key_exactly_one_wins(store: Store, damaged: bool) -> None:
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, str(store.root), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for name in ("x", "y")
    ]
    winners = set()
    for number in range(40):
        key = f"{number:064x}"[::-1]
        if damaged:
            made = store.publish(staged_one(store, key), "a", "p", key, {}, ["out"])
            damage(made, "out")
        for racer in racers:
            print(key, file=racer.stdin, flush=True)
        said = [racer.stdout.readline().split() for racer in racers if racer.stdout]
        found = store.find("a", "p", key)
        assert found and [version for version, _ in said] == [found.data_version] * 2
        assert [discarded for _, discarded in said].count("None") == 1
        assert store.check(found.folder, found.manifest, deep=True) == []
        winners.add(said[0][1] == "None")
    for racer in racers:
        racer.communicate()
        assert racer.returncode == 0
    assert leftovers(store) == [] and winners == {True, False}


def staged_one(store: Store, key: str) -> Path:
    folder = store.stage("a", "p", key)
    (folder / "out").write_bytes(b"z")
    return folder


VICTIM = """
import sys
from pathlib import Path
from ctcore.store.store import Store
store, start = Store(Path(sys.argv[1])), int(sys.argv[2])
print("ready", flush=True)
for number in range(1000):
    key = f"{start + number:016x}"
    staged = store.stage("a", "p", key)
    (staged / "d").mkdir()
    (staged / "d" / "big").write_bytes(key.encode() * 20_000)
    (staged / "small").write_text(key)
    store.publish(staged, "a", "p", key, {"n": number}, ["d/big", "small"])
"""


def test_a_killed_process_leaves_only_whole_artifacts(store: Store) -> None:
    interrupted = published = 0
    chance = random.Random(1)
    for number in range(400):
        if interrupted > 10 and published > 10:
            break
        arguments = [sys.executable, "-c", VICTIM, str(store.root), str(number * 1000)]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, cwd=ROOT) as victim:
            assert victim.stdout and victim.stdout.readline() == "ready\n"
            time.sleep(chance.uniform(0, 0.03))
            victim.send_signal(signal.SIGKILL)
        interrupted += len(leftovers(store))
        for folder in (store.root / "a" / "p").glob("*"):
            made = store.find("a", "p", folder.name)
            assert made and store.check(folder, made.manifest, deep=True) == []
            store.remove(folder)
            published += 1
        store.sweep(3600)
        assert leftovers(store) == []
    assert interrupted > 10 and published > 10


def as_ordinary_user(action: Callable[[Path], str]) -> str:
    """Run in a child without root's rights, in a folder of its own; gives back what it says."""
    folder = Path(tempfile.mkdtemp())
    if os.geteuid() == 0:
        os.chown(folder, 65534, 65534)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            said = action(folder)
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    subprocess.run(["chmod", "-R", "u+w", folder], check=True)
    shutil.rmtree(folder)
    return said


def test_an_ordinary_user_can_publish_replace_and_remove() -> None:
    def action(folder: Path) -> str:
        store = Store(folder / "store")
        first = publish(store)
        damage(first)
        again = publish(store)
        store.remove(again.folder)
        publish(store)
        left = staged(store)
        (left / "d").chmod(0o555)
        os.rename(left, store.staging / "x~y~z~elsewhere~1~0")
        return f"{again.discarded} {len(store.sweep(-1))} {leftovers(store)}"

    assert as_ordinary_user(action) == "None 1 []"


def test_a_refused_permission_leaves_nothing_half_made() -> None:
    def action(folder: Path) -> str:
        store = Store(folder / "store")
        place = staged(store)
        (store.root / "reads_qc").mkdir(mode=0o555)
        try:
            store.publish(place, *NODE, KEY, {}, list(CONTENT))
        except StoreError as error:
            return f"{error} | {leftovers(store)} {store.find(*NODE, KEY)}"
        return "published"

    said = as_ordinary_user(action)
    assert re.fullmatch(r"cannot publish .*/reads_qc/A01/\w{16}: permission denied: ask .* \| \[\] None", said)


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"this user may not mount: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_is_said_and_nothing_half_made_stays(tmpfs: Path) -> None:
    store = Store(tmpfs / "store")
    folder = staged(store, {"a": b"a"})
    with pytest.raises(OSError) as full, (tmpfs / "filler").open("wb", buffering=0) as filler:
        while filler.write(bytes(4096)):
            pass
    assert full.value.errno == errno.ENOSPC
    with pytest.raises(StoreError, match=r"cannot publish .*: the disk is full: free space"):
        store.publish(folder, *NODE, KEY, {}, ["a"])
    assert leftovers(store) == [] and store.find(*NODE, KEY) is None
    assert not list(tmpfs.rglob("*.b3"))
    (tmpfs / "filler").unlink()
    assert publish(store).discarded is None


def test_a_read_only_file_system_is_said(tmpfs: Path) -> None:
    store = Store(tmpfs / "store")
    made, folder = publish(store), staged(store, key=OTHER)
    subprocess.run(["mount", "-o", "remount,ro", tmpfs], check=True)
    for action in (
        lambda: store.stage(*NODE, OTHER),
        lambda: store.publish(folder, *NODE, OTHER, {}, list(CONTENT)),
        lambda: store.remove(made.folder),
        Store(tmpfs / "new").ensure,
    ):
        with pytest.raises(StoreError, match="the file system is read-only: have it mounted"):
            action()
    assert store.find(*NODE, KEY) == made
    assert store.check(made.folder, made.manifest, deep=True) == []


def test_the_sidecar_is_readable_by_a_person(store: Store) -> None:
    text = (publish(store).folder / "ct.json").read_text()
    assert json.loads(text) and len(text.splitlines()) > 10
