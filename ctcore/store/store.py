"""The store: stage → digest → make read-only → publish by one rename. Nobody sees a half-made artifact.

`<asset>/<partition>/<first 16 digits of the call's key>/` holds the outputs, MANIFEST.b3 and ct.json; `.staging/` holds
private folders. It runs on compute nodes, so it needs only the standard library and blake3.
"""

import errno
import fcntl
import json
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from stat import S_ISREG
from tempfile import TemporaryFile
from typing import Any

from ctcore.errors import StoreError
from ctcore.store.digest import OnBytes, Signature, canonical_json, try_digests
from ctcore.store.manifest import (
    LOG,
    MANIFEST,
    OWN,
    SEGMENT,
    SIDECAR,
    TAG,
    Damage,
    ExpectedArtifact,
    Manifest,
    check_many,
    check_names,
    manifest_of,
    scan,
)
from ctcore.util import json_text
from ctcore.util.atomic_file import sync
from ctcore.util.disk_errors import WENT_AWAY, disk_error
from ctcore.util.processes import started_at

SCRATCH = ".scratch"
STAGING = ".staging"
ARCHIVED = ".archived"
# Names of folders stay short. Two keys that begin alike are told apart by the sidecar (`_open`).
_KEY_DIGITS = 16
_SEGMENT, _KEY = re.compile(SEGMENT), re.compile(r"[0-9a-f]{16,}")


@dataclass(frozen=True)
class PublishedArtifact:
    """An artifact in the store.

    `discarded` is the data version of this call's own making where an earlier making of the same key was
    there and was kept; if it differs from `data_version`, the step is not deterministic.
    """

    folder: Path
    manifest: Manifest
    data_version: str
    discarded: str | None = None


@dataclass(frozen=True)
class Store:
    """The published artifacts below one folder."""

    root: Path

    @property
    def staging(self) -> Path:
        return self.root / STAGING

    @property
    def is_there(self) -> bool:
        """Whether this is a store: a folder where its disk should be mounted is none."""
        try:
            return self.staging.is_dir() or any(not name.startswith(".") for name in os.listdir(self.root))
        except OSError:
            return False

    @property
    def loss(self) -> str:
        """Said of work that was under way when the store vanished: its place and the way out. Empty while it is
        there."""
        leads = f", which leads to {os.path.realpath(self.root)}" if self.root.is_symlink() else ""
        return "" if self.is_there else f" ({self.root}{leads}); {WENT_AWAY}"

    def refuse_missing(self) -> None:
        """StoreError where the store was, and is not any more. Nobody makes another one in its place in a run."""
        if not self.is_there:
            raise StoreError(f"the store is not there any more{self.loss}")

    def close(self, why: str | None) -> None:
        """Refuse every change from now on, in these words; None: not any more. Processes on any machine see it."""
        place = self.root / ARCHIVED
        with _telling("write", place):
            self.root.mkdir(parents=True, exist_ok=True)
            if why is None:
                place.unlink(missing_ok=True)
                return
            part = self.root / f"{ARCHIVED}.{os.getpid()}"
            part.write_text(why, encoding="utf-8")
            os.replace(part, place)

    def _refuse_archived(self) -> None:
        with suppress(FileNotFoundError):
            raise StoreError((self.root / ARCHIVED).read_text(encoding="utf-8"))

    def ensure(self) -> None:
        """Create the store's missing folders. StoreError if that is impossible."""
        self._refuse_archived()
        if self.root.is_symlink() and not self.root.exists():
            where = os.readlink(self.root)
            raise StoreError(
                f"cannot write in {self.root}: it leads to {where}, which is not there; mount its disk again"
            )
        with _telling("create", self.root):
            self.staging.mkdir(parents=True, exist_ok=True)
        # Rights alone do not tell: the disk may be full, read-only, or over its quota.
        with _telling("write in", self.root), TemporaryFile(dir=self.staging, prefix=".probe"):
            pass

    def folder(self, asset: str, partition: str, key: str) -> Path:
        """Where the artifact of this call is, once it is published."""
        _check_node(asset, partition, key)
        return self.root / asset / partition / key[:_KEY_DIGITS]

    def stage(self, asset: str, partition: str, key: str) -> Path:
        """A new private folder for the outputs of a call.

        It belongs to this process: when that ends, `sweep` removes it. So ask for it where the step runs.
        """
        _check_node(asset, partition, key)
        self.ensure()
        with _telling("stage in", self.staging):
            return self._own_folder(asset, partition, key[:_KEY_DIGITS])

    def publish(
        self,
        staged: Path,
        asset: str,
        partition: str,
        key: str,
        sidecar: Mapping[str, Any],
        names: Sequence[str],
        same_as: Path | None = None,
        log: bytes | None = None,
    ) -> PublishedArtifact:
        """Make a staged folder the artifact of this call, or keep the intact one that exists.

        The first making of a key wins, even over one with other bytes: results made from it stay true. A damaged
        artifact is replaced. Files equal to those of `same_as`, an earlier artifact, become hard links to them. `log`
        is kept beside them, compressed. Repeating it after a crash is safe. StoreError if the files are not exactly the
        declared ones (the staged folder stays for inspection), or if the disk refuses (the staged folder is removed).
        """
        self._refuse_archived()
        target = self.folder(asset, partition, key)
        if not staged.exists() and (earlier := self.find(asset, partition, key)):
            return self._finish(earlier)
        if staged.parent != self.staging:
            raise StoreError(f"{staged} is not a folder of {self.staging}; ask for one with Store.stage")
        with _telling("publish", target), _discarding(staged):
            _prepare(staged)
            _check_contents(staged, names)
            manifest = manifest_of(staged, names)
            if same_as is not None:
                _share(staged, manifest, same_as)
            own = {"asset": asset, "partition": partition, "key": key}
            described = _described(manifest, sidecar.get("outputs"))
            if log is not None:
                (staged / LOG).write_bytes(log)
                os.chmod(staged / LOG, 0o444)
            # Manifest and sidecar come last: a folder that has both is complete.
            _seal(staged, manifest, {**sidecar, "store": own | described})
            return self._put(staged, PublishedArtifact(target, manifest, described["data_version"]), key)

    def find(self, asset: str, partition: str, key: str) -> PublishedArtifact | None:
        """The artifact of a call; None where there is none that its manifest and sidecar agree on."""
        return _open(self.folder(asset, partition, key), key)

    def sidecar(self, folder: Path) -> dict[str, Any]:
        """The record that came with an artifact, with the store's own part under `store`."""
        place = folder / SIDECAR
        with _telling("read", place):
            try:
                return json_text.loads(place.read_bytes())
            except ValueError as error:
                raise StoreError(f"{place} is damaged: {error}; make the artifact again") from error

    def check(
        self,
        folder: Path,
        expected: Mapping[str, tuple[int, str]] | Manifest,
        signatures: Mapping[str, Signature] | None = None,
        deep: bool = False,
    ) -> list[Damage]:
        """The damage of one artifact; see `check_many`."""
        return check_many([ExpectedArtifact(folder, expected, signatures)], deep=deep)[0]

    def check_many(
        self, items: Iterable[ExpectedArtifact], deep: bool = False, on_bytes: OnBytes | None = None
    ) -> list[list[Damage]]:
        """The damage of each of many artifacts; all doubtful files are digested together."""
        return check_many(items, deep=deep, on_bytes=on_bytes)

    def supersede(self, made: PublishedArtifact, asset: str, partition: str, key: str) -> PublishedArtifact:
        """Replace the artifact of this call by another store's. StoreError if the disk refuses; then the old one is
        still there."""
        self._refuse_archived()
        target = self.folder(asset, partition, key)
        with _telling("publish", target):
            staged = self._own_folder(asset, partition, key[:_KEY_DIGITS])
            with _discarding(staged):
                # Copied, because a rename works within one file system only (rename(2), EXDEV).
                shutil.copytree(made.folder, staged, dirs_exist_ok=True)
                os.chmod(staged, 0o700)
                # Before the rename: after a power failure, a file system may have kept the rename and not the content.
                _synced(staged)
                with self._locked():
                    aside = self._aside(target)
                    _renamed(staged, target)
                    _delete(aside)
        return self._finish(replace(made, folder=target))

    def remove(self, folder: Path) -> None:
        """Remove a published artifact: at once out of sight, and then file by file."""
        if len(folder.parts) != len(self.root.parts) + 3 or self.root not in folder.parents:
            raise StoreError(f"{folder} is not an artifact's folder in {self.root}; nothing was removed")
        self.ensure()
        with _telling("remove", folder):
            _delete(self._aside(folder))

    def sweep(self, older_than_s: float) -> list[Path]:
        """Remove staged folders of ended processes on this host. For other hosts, which cannot be asked, remove
        folders that nothing has touched for this many seconds."""
        self._refuse_archived()
        removed: list[Path] = []
        with _telling("sweep", self.staging):
            for folder in sorted(self.staging.glob("[!.]*")):
                with suppress(FileNotFoundError, PermissionError):  # published meanwhile; another user's
                    if _abandoned(folder, older_than_s):
                        _delete(folder)
                        removed.append(folder)
        return removed

    def drop_staged(self, calls: Iterable[tuple[str, str, str]]) -> None:
        """Remove the staged folders of these calls (asset, partition, key). The caller knows that they are over."""
        self._refuse_archived()
        begun = {"~".join((asset, partition, key[:_KEY_DIGITS])) for asset, partition, key in calls}
        with _telling("sweep", self.staging):
            for folder in list(self.staging.glob("[!.]*")):
                if "~".join(folder.name.split("~")[:3]) in begun:
                    _delete(folder)

    def _own_folder(self, *what: str) -> Path:
        folder = self.staging / "~".join((*what, this_host(), str(os.getpid()), secrets.token_hex(4)))
        # Host, process and a random part: `sweep` can tell whose it is, and whether that one lives.
        folder.mkdir(mode=0o700)
        return folder

    def _put(self, staged: Path, mine: PublishedArtifact, key: str) -> PublishedArtifact:
        """One rename decides between two that publish the same key: the second finds the place taken."""
        target = mine.folder
        kept = None
        if not _renamed(staged, target):
            # The first making stays, also where this one has other bytes: results were made from it (0004).
            kept = _intact(target, key) or self._replace(staged, target, key)
        if kept is None:
            return self._finish(mine)
        _delete(staged)
        same = kept.manifest.files == mine.manifest.files  # of before: its version has another tag
        return self._finish(replace(kept, discarded=kept.data_version if same else mine.data_version))

    def _finish(self, published: PublishedArtifact) -> PublishedArtifact:
        """Read-only at the top only now: to move a folder elsewhere, one must be allowed to write in it."""
        target = published.folder
        with _telling("publish", target):
            # Looked at first: the rights of what another user published can be changed by that user alone (chmod(2)).
            if os.stat(target).st_mode & 0o222:
                os.chmod(target, 0o555)
            # The rename itself is on the disk once the folders are (fsync(2)): the ledger must name nothing that can
            # vanish.
            for folder in (target, target.parent, target.parent.parent, self.root):
                sync(folder)
        return published

    def _replace(self, staged: Path, target: Path, key: str) -> PublishedArtifact | None:
        """Put the staged folder in the place of a damaged artifact; or return the intact one that another process put
        there.

        The lock separates replacing processes: none may remove what another has just put in.
        """
        with self._locked():
            while (kept := _intact(target, key)) is None:
                aside = self._aside(target)
                done = _renamed(staged, target)
                _delete(aside)
                if done:
                    return None
        return kept

    def _aside(self, folder: Path) -> Path:
        """Take a published folder out of sight, if it is there."""
        away = self._own_folder("aside")
        with suppress(FileNotFoundError):
            # A folder's own write permission is needed to move it, because its entry `..` changes (rename(2), EACCES).
            os.chmod(folder, 0o755)
            os.rename(folder, away)
        return away

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with open(self.staging / ".lock", "a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _check_node(asset: str, partition: str, key: str) -> None:
    for what, text in (("asset", asset), ("partition", partition)):
        if not _SEGMENT.fullmatch(text):
            raise StoreError(f"{what} {text!r} is no name for a folder; use letters, digits, `_`, `.` and `-`")
    if not _KEY.fullmatch(key):
        raise StoreError(f"key {key!r} is not a digest in hexadecimal")


@contextmanager
def _telling(doing: str, place: Path) -> Iterator[None]:
    """Turn errors of the system into a problem with a way out."""
    try:
        yield
    except OSError as error:
        said = disk_error(place, error) or error
        raise StoreError(f"cannot {doing} {place}: {said.strerror or error}") from error


@contextmanager
def _discarding(staged: Path) -> Iterator[None]:
    try:
        yield
    except OSError:
        with suppress(OSError):
            _delete(staged)
        raise


def _prepare(staged: Path) -> None:
    """Make it writable again after an earlier try, and remove everything that is no output."""
    for folder, _, _ in os.walk(staged):
        os.chmod(folder, 0o700)
    _delete(staged / SCRATCH)
    for name in OWN:
        (staged / name).unlink(missing_ok=True)


def _check_contents(staged: Path, names: Sequence[str]) -> None:
    """StoreError unless exactly the declared regular files are there; makes each read-only and its own."""
    check_names(names)
    seen = scan(os.fspath(staged))
    problems = {
        "declared but not written": [name for name in names if name not in seen],
        "written but not declared": [name for name in seen if name not in names],
        "not a regular file": [name for name, stat in seen.items() if not S_ISREG(stat.st_mode)],
    }
    said = [f"{problem}: {', '.join(sorted(which))}" for problem, which in problems.items() if which]
    if said or not names:
        raise StoreError(
            f"{'; '.join(said) or 'no outputs are declared'}; nothing was published. Declare what is an"
            " output, and write what is not with call.scratch"
        )
    for name, stat in seen.items():
        if stat.st_nlink > 1:  # a link to a file elsewhere, which may change and must not become read-only
            _unlinked(staged / name)
        os.chmod(staged / name, 0o444)


def _unlinked(path: Path) -> None:
    copy = path.with_name(".copy")
    shutil.copyfile(path, copy)
    os.replace(copy, path)


def _share(staged: Path, manifest: Manifest, earlier: Path) -> None:
    """Hard links to equal files of an earlier artifact, if they still have the bytes of its manifest."""
    published = _open(earlier)
    same = published.manifest.files.items() & manifest.files.items() if published else ()
    reads, _ = try_digests({f"{earlier}/{name}": None for name, _ in same})
    link = staged / ".link"
    for name, entry in same:
        # By bytes and not by the manifest: a link to a damaged file would damage this artifact too.
        if reads.get(f"{earlier}/{name}", ("",))[0] == entry.digest:
            # EXDEV, EMLINK or EPERM (link(2)): another file system, too many links, links forbidden. Then it is a copy.
            with suppress(OSError):
                os.link(earlier / name, link, follow_symlinks=False)
                os.replace(link, staged / name)
            link.unlink(missing_ok=True)


def _described(manifest: Manifest, outputs: Mapping[str, str] | None) -> dict[str, Any]:
    files = {name: {"digest": e.digest, "size": e.size} for name, e in sorted(manifest.files.items())}
    if outputs is None:
        return {"format": 1, "data_version": manifest.data_version, "files": files}
    return {"format": 2, "tag": TAG, "data_version": manifest.version(outputs), "files": files}


def _seal(staged: Path, manifest: Manifest, sidecar: Mapping[str, Any]) -> None:
    """Write manifest and sidecar, make all read-only, and wait until all of it is on the disk."""
    canonical_json(sidecar)  # refuses what is not JSON
    text = json.dumps(sidecar, indent=1, sort_keys=True, ensure_ascii=False)
    for name, content in ((MANIFEST, manifest.text()), (SIDECAR, text + "\n")):
        (staged / name).write_text(content, encoding="utf-8")
        os.chmod(staged / name, 0o444)
    _synced(staged)


def _synced(staged: Path) -> None:
    """All of it on the disk; folders in it are read-only."""
    # From the inside out: fsync of a file does not write its entry in the folder, which needs its own (fsync(2)).
    for folder, _, files in os.walk(staged, topdown=False):
        for name in files:
            sync(os.path.join(folder, name))
        if folder != os.fspath(staged):
            os.chmod(folder, 0o555)
        sync(folder)


def _renamed(staged: Path, target: Path) -> bool:
    """Move staged to its place; False where something is there."""
    for folder in (target.parents[1], target.parent):  # and no store in the place of one that vanished
        folder.mkdir(exist_ok=True)
    try:
        # A folder replaces only an empty one (rename(2), ENOTEMPTY): an artifact has files, so it is never replaced.
        os.rename(staged, target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    return True


def _open(folder: Path, key: str | None = None) -> PublishedArtifact | None:
    """A published folder by its own manifest and sidecar; None where they are missing or disagree."""
    with _telling("read", folder):
        try:
            side = json_text.loads((folder / SIDECAR).read_bytes())
            own = side["store"]
            text = (folder / MANIFEST).read_text(encoding="utf-8")
            sizes = {name: entry["size"] for name, entry in own["files"].items()}
            manifest = Manifest.parse(text, sizes)
            found, version = own["key"], own["data_version"]
            same = version == manifest.version_by(side)
        except (
            FileNotFoundError,
            NotADirectoryError,
            ValueError,
            TypeError,
            LookupError,
            AttributeError,
            StoreError,
        ):
            return None
    if not same:
        return None
    if key not in (None, found):
        raise StoreError(f"{folder} holds call {found}, not {key}; remove it if it does not belong there")
    return PublishedArtifact(folder, manifest, version)


def _intact(folder: Path, key: str) -> PublishedArtifact | None:
    found = _open(folder, key)
    if found is None or check_many([ExpectedArtifact(folder, found.manifest)], deep=True) != [[]]:
        return None
    return found


def _delete(folder: Path) -> None:
    """Remove a folder with its content, read-only or not. Another process may be removing it too."""
    for inside, _, _ in os.walk(folder):
        with suppress(FileNotFoundError):
            os.chmod(inside, 0o700)
    shutil.rmtree(folder, onerror=_unless_gone)


def _unless_gone(function: Any, path: str, info: Any) -> None:
    if not isinstance(info[1], FileNotFoundError):
        raise info[1]


@cache
def this_host() -> str:
    """This host and, as containers share hosts' names, the space in which its process ids are valid."""
    host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:63]
    try:
        return f"{host}-{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return host


def _abandoned(folder: Path, older_than_s: float) -> bool:
    parts = folder.name.split("~")
    if len(parts) > 3 and parts[-3] == this_host() and parts[-2].isdecimal():
        return not is_alive(int(parts[-2]))
    return _last_touched(folder) < time.time() - older_than_s


def is_alive(pid: int) -> bool:
    """Whether a process of this number runs on this host."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    # A signal reaches a corpse too, and where the first process of a container waits for nobody, it stays one for ever.
    return started_at(pid) is not None or not os.path.exists("/proc/self/stat")


def _last_touched(folder: Path) -> float:
    """A step that writes on in one file does not touch the folder."""
    times = [stat.st_mtime for stat in scan(os.fspath(folder)).values()]
    return max(times, default=folder.stat().st_mtime)
