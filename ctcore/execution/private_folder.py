"""A call's own working directory and temporary files; its environment is restored afterwards.

The working directory lies in the staged folder: on the store's disk, and swept with it. Temporary files lie on their
usual disk under a short name, because the path of a socket has at most 108 characters.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from hashlib import blake2s
from pathlib import Path
from secrets import token_hex
from typing import Self

from ctcore.errors import StepError
from ctcore.store.store import SCRATCH, is_alive, this_host

NOT_FOR_CALLS = ("CT_PROJECT", "CT_POSTGRES_URL", "DAGSTER_")
"""How variables begin that lead to the project, its catalog or Dagster. A run that is Dagster's has them, and one that
is not has not: no call sees them."""

_CLOSED = "the step closed files that it had not opened (os.closerange?): close only your own"
_PLACE = ".cwd"
_TEMPORARY = ("TMPDIR", "TEMP", "TMP")
_OWN = re.compile(r"ct-call-([0-9a-f]{8})-(\d+)-[0-9a-f]{8}")
_SHOWN = 5


class OpenFile:
    """A file of the worker's that is open during a call; a step can close it, and open another under its number."""

    def __init__(self, number: int) -> None:
        self._number, self._seen = number, os.fstat(number)

    @property
    def is_there(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._number), self._seen)
        except OSError:
            return False

    def fileno(self) -> int:
        return self._number

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._number)


@contextmanager
def private_folder(staged: Path) -> Iterator[Path]:
    """Inside of this block the process is the call's: gives its working directory, and removes it afterwards."""
    place = staged / SCRATCH / _PLACE
    place.mkdir(parents=True)
    before, known = dict(os.environ), tempfile.tempdir
    back = OpenFile(os.open(".", os.O_RDONLY))  # also where that folder is gone, it can be gone back to
    temporary = _temporary(staged)
    try:
        os.environ.update({**dict.fromkeys(_TEMPORARY, str(temporary)), "PWD": str(place)})
        # `tempfile` keeps its first answer for the process, whatever TMPDIR says later (docs.python.org,
        # tempfile.tempdir).
        tempfile.tempdir = None
        os.chdir(place)
        yield place
        if not back.is_there:
            raise StepError(_CLOSED)
    finally:
        if back.is_there:
            with back:
                os.fchdir(back.fileno())
        else:
            os.chdir(os.sep)
        _restore(before)
        tempfile.tempdir = known
        _forget_processes()
        remove(temporary)
        with suppress(OSError):
            os.rmdir(place)
        remove(staged / SCRATCH)


def _temporary(staged: Path) -> Path:
    name = f"ct-call-{_host()}-{os.getpid()}-{token_hex(4)}"
    for folder in (Path(tempfile.gettempdir()).absolute(), staged / SCRATCH):
        with suppress(OSError):  # full, or not ours to write in: then on the store's disk
            (folder / name).mkdir(mode=0o700)
            return folder / name
    return staged / SCRATCH  # it was made a moment ago; if it is gone by now, the step will say so


def _host() -> str:
    return blake2s(this_host().encode(), digest_size=4).hexdigest()


def leave_project() -> None:
    """Remove variables that lead to the project from the environment."""
    for name in [name for name in os.environ if name.startswith(NOT_FOR_CALLS)]:
        del os.environ[name]


def sweep_temporary() -> None:
    """Remove the temporary files of this user's calls whose process was killed on this host."""
    with suppress(OSError), os.scandir(tempfile.gettempdir()) as entries:
        for entry in entries:
            found = _OWN.fullmatch(entry.name)
            if found and found[1] == _host() and not is_alive(int(found[2])):
                with suppress(OSError):
                    if entry.stat(follow_symlinks=False).st_uid == os.getuid():
                        remove(Path(entry.path))


def _restore(before: Mapping[str, str]) -> None:
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    for name, value in before.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


def _forget_processes() -> None:
    """multiprocessing keeps its folder of sockets and the server that forks: they were the call's, too."""
    if (server := sys.modules.get("multiprocessing.forkserver")) is not None:
        with suppress(Exception):
            server._forkserver._stop()
    if (process := sys.modules.get("multiprocessing.process")) is not None:
        # `multiprocessing.util.get_temp_dir` keeps it here; the next call would put its sockets into a removed folder.
        process.current_process()._config.pop("tempdir", None)


def remove(folder: Path) -> None:
    """Remove a folder with its content, even if a tool made it read-only."""
    with suppress(OSError):  # most are empty
        os.rmdir(folder)
        return
    for inside, _, _ in os.walk(folder):
        with suppress(OSError):
            # To remove an entry, one must be allowed to write in its folder (unlink(2)); the rights of the entry do not
            # count.
            os.chmod(inside, 0o700)
    shutil.rmtree(folder, ignore_errors=True)


def adopt(place: Path, staged: Path, files: Sequence[str]) -> None:
    """Take a file in the working directory as an output if it has the output's name."""
    for file in files:
        mine, target = place / file, staged / file
        if mine.is_file() and not os.path.lexists(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            if mine.is_symlink():
                shutil.copyfile(mine, target)
            else:
                mine.rename(target)


def missing_output_hint(
    place: Path, staged: Path, name: str, file: str, outputs: Collection[str], written: Collection[str]
) -> str:
    """Where a missing output was written, if that was seen; otherwise empty. `written` are the files that the step
    opened."""
    way = f'write it to call.out("{name}")'
    bare = os.path.basename(file)
    left = _files(place)
    same = [one for one in left if os.path.basename(one) == bare]
    elsewhere = sorted(one for one in written if os.path.basename(one) == bare and os.path.exists(one))
    others = [one for one in _files(staged) if one not in outputs and not one.startswith(SCRATCH)]
    if not same and elsewhere:
        return f"; but the step wrote {_listed(elsewhere)}: {way}"
    if left:
        return f"; but the step left {_listed(same or left)} in its working directory: {way}"
    return f"; but the step wrote {_listed(others)} into call.folder: {way}" if others else ""


def _files(folder: Path) -> list[str]:
    found = [os.path.join(inside, name) for inside, _, names in os.walk(folder) for name in names]
    return sorted(os.path.relpath(one, folder) for one in found)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def project_path_hint(names: Iterable[str], root: Path) -> str | None:
    """The way out if a step looked for a project file by a relative path; None if it did not."""
    for said in names:
        if said and not os.path.isabs(said) and (root / said).is_file():
            return (
                f"{said} lies in the project, and a call has a working directory of its own. Declare it: as a reference"
                f' ([references.KEY] path = "{said}" in ct.toml), and read call.reference("KEY"); or a script with'
                " code=(…) of the step, and find it from Path(__file__)"
            )
    return None


def missing_file_names(error: BaseException) -> Iterator[str]:
    """File names in an error: of a missing file, or among the arguments of a failed command."""
    if isinstance(error, OSError):
        yield from (os.fsdecode(one) for one in (error.filename, error.filename2) if isinstance(one, str | bytes))
    if isinstance(error, subprocess.CalledProcessError):
        words = error.cmd if isinstance(error.cmd, list | tuple) else [error.cmd]
        for word in words:
            text = os.fsdecode(word) if isinstance(word, str | bytes | os.PathLike) else ""
            yield text
            with suppress(ValueError):
                yield from (part for part in shlex.split(text) if "/" in part or "." in part)
