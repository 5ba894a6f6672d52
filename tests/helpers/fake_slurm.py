"""A Slurm that says whatever a test wants it to say: for states that no cluster gives when asked, and for its silences.

Four programs in a folder. `sbatch` gives numbers from 1, and runs the jobs of a submission where the test says so;
`squeue` and `sacct` print what the test has written.
"""

from pathlib import Path

_NAMED = r"""
named() { # NAME in a line of array 1, 2, … is the name of what was submitted first, second, …
  [ -e "$F/submitted" ] || { cat; return; }
  sed -E -f <(awk -F/ '{ printf "s/^%d_([0-9]+)[|]NAME[|]/%d_\\1|%s|/\n", NR, NR, $(NF-1) }' "$F/submitted")
}
"""
_PROGRAMS = {
    "sbatch": """
[ -e "$F/refuse" ] && { cat "$F/refuse" >&2; exit 1; }
touch "$F/begun"
while [ -e "$F/lingers" ]; do sleep 0.05; done
echo "$2" >> "$F/submitted"
n=$(grep -nxF "$2" "$F/submitted" | tail -1 | cut -d: -f1)
folder=$(dirname "$2")
if [ -e "$F/run.$n" ]; then
  for call in "$folder"/calls/*.json; do
    (cd "$folder"; SLURM_ARRAY_TASK_ID=$(basename "$call" .json) bash "$2" > "${n}_0.out" 2>&1)
  done
fi
[ -e "$F/mumbles" ] && { sed -i "s/NAME/$(basename "$folder")/" "$F/queue"; cat "$F/mumbles"; exit 0; }
[ -e "$F/taken_but" ] && { sed -i "s/NAME/$(basename "$folder")/" "$F/queue"; cat "$F/taken_but" >&2; exit 1; }
echo "$n"
""",
    "squeue": """
printf '%s\\n' "$*" >> "$F/asked"
while [ -e "$F/hangs" ]; do sleep 0.05; done
[ -e "$F/down" ] && { echo "slurm_load_jobs error: Unable to contact slurm controller" >&2; exit 1; }
cat "$F/queue" 2>/dev/null | named
""",
    "sacct": """
printf '%s\\n' "$*" >> "$F/accounted"
[ -e "$F/sleeps" ] && exec sleep 60
[ -e "$F/no_accounting" ] && { cat "$F/no_accounting" >&2; exit 1; }
cat "$F/account" 2>/dev/null | named
""",
    "scancel": """
[ -e "$F/down" ] && { echo "scancel: error: Unable to contact slurm controller" >&2; exit 1; }
echo "$@" >> "$F/cancelled"
""",
    "scontrol": 'echo "MaxArraySize            = 1001"',
    "srun": "exit 1",
}


class FakeSlurm:
    """Its folder has the programs; put it first on the PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.programs = folder / "programs"
        self.programs.mkdir(parents=True)
        for name, body in _PROGRAMS.items():
            (self.programs / name).write_text(f'#!/bin/bash\nF="{folder}"{_NAMED}{body.lstrip()}')
            (self.programs / name).chmod(0o755)

    def runs(self, *submissions: int) -> None:
        """Jobs of these submissions run while sbatch submits them. The others never leave anything."""
        for number in submissions:
            (self.folder / f"run.{number}").touch()

    def says(self, what: str, text: str = "") -> None:
        """`queue` and `account` are answers; `refuse`, `down`, `hangs`, `lingers`, `no_accounting` are failures until
        `takes_back`."""
        part = self.folder / f"{what}.part"
        part.write_text(text)
        part.rename(self.folder / what)

    def takes_back(self, what: str) -> None:
        (self.folder / what).unlink()

    def queue(self, *states: str, exit_code: int = 0) -> None:
        """What squeue says of job 0 of array 1, 2, …: a line a state."""
        lines = [f"{at}_0|NAME|{state}|None|n1|0:05|{exit_code}|" for at, state in enumerate(states, 1) if state]
        self.says("queue", "\n".join(lines) + "\n")

    def account(self, *states: str, exit_code: str = "0:0") -> None:
        """The same of sacct."""
        lines = [f"{at}_0|NAME|{state}|{exit_code}|n1|5|00:01|" for at, state in enumerate(states, 1) if state]
        lines += [f"{at}_0.batch|batch|{state}|{exit_code}|n1|5|00:01|51200K" for at, state in enumerate(states, 1)]
        self.says("account", "\n".join(lines) + "\n")

    def count(self, what: str) -> int:
        """How often it was `submitted`, `asked`, `accounted` or `cancelled`."""
        path = self.folder / what
        return len(path.read_text().splitlines()) if path.exists() else 0
