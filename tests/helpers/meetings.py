"""A project whose calls wait for each other, as a test tells them: what goes on beside what, without a clock."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

import dagster as dg

from ctcore.projects.dagster_home import environment as dagster_environment
from tests.helpers.kit import TOML, assay, make_project
from tests.helpers.shell import quiet_dagster

PATIENCE_S = 120
STEPS = f"""
import time
from dataclasses import dataclass
from pathlib import Path
from ctcore.step import Call, step

@dataclass(frozen=True)
class Told:
    folder: str = ""

def obey(call: Call, name: str) -> None:
    at = Path(call.params.folder)
    with open(at / "calls", "a") as calls:
        calls.write(f"{{name}}/{{call.entity}}\\n")
    told, until = at / f"{{name}}-{{call.entity}}", time.monotonic() + {PATIENCE_S}
    for other in told.read_text().split() if told.exists() else []:
        if other == "fail":
            raise ValueError("told to fail")
        while not (at / other).exists():
            if time.monotonic() > until:
                raise ValueError(f"{{other}} did not come")
            time.sleep(0.02)
    call.out("n").write_text(call.entity)
    (at / f"{{name}}-{{call.entity}}.done").touch()

@step(level="assay", files=["reads"], outputs={{"n": "n.txt"}}, params=Told)
def first(call: Call) -> None:
    obey(call, "first")

@step(level="assay", inputs={{"up": "first"}}, outputs={{"n": "n.txt"}}, params=Told)
def second(call: Call) -> None:
    obey(call, "second")

@step(level="assay", inputs={{"up": "second"}}, outputs={{"n": "n.txt"}}, params=Told)
def third(call: Call) -> None:
    obey(call, "third")

@step(level="assay", files=["reads"], outputs={{"n": "n.txt"}}, params=Told)
def apart(call: Call) -> None:
    obey(call, "apart")

@step(level="cohort", inputs={{"all": "third"}}, outputs={{"n": "n.txt"}}, params=Told)
def together(call: Call) -> None:
    obey(call, "together")
"""
NAMES = ("first", "second", "third", "apart", "together")


class Meetings:
    """Assays A1, A2, … and the steps `first`, `second`, `third` in a row, `apart` beside them, `together` of all.

    In the folder `told`, each call leaves `STEP-ID.done`; a call that was told of files waits for each of them.
    """

    def __init__(self, root: Path, many: int = 3, toml: str = "") -> None:
        self.told = root / "told"
        self.told.mkdir(parents=True)
        text = "".join(f'[params.{name}]\nfolder = "{self.told}"\n' for name in NAMES)
        rows = [assay(f"P{at}", f"S{at}", f"A{at}", sex="F") for at in range(1, many + 1)]
        self.project = make_project(root / "p", rows, STEPS, f"{TOML}\n{text}{toml}")
        self.root = quiet_dagster(self.project.root)

    def tell(self, call: str, *files: str) -> None:
        """What a call (`first-A1`) waits for, in turn; `fail`: it fails then."""
        (self.told / call).write_text(" ".join(files))

    def say(self, file: str) -> None:
        (self.told / file).touch()

    def is_done(self, *calls: str) -> bool:
        return all((self.told / f"{call}.done").exists() for call in calls)

    def calls(self) -> Counter[str]:
        """How often each node's call began."""
        place = self.told / "calls"
        return Counter(place.read_text().split() if place.exists() else ())

    def events(self, steps: Sequence[str] = NAMES) -> Counter[str]:
        """How often Dagster was told of each node."""
        found: Counter[str] = Counter()
        with patch.dict(os.environ, dagster_environment(self.project)), dg.DagsterInstance.get() as instance:
            for name in steps:
                wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey([name]))
                records = instance.fetch_materializations(wanted, limit=1000).records
                found.update(f"{name}/{record.partition_key}" for record in records)
        return found
