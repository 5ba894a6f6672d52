"""Whose catalog it is, and whether it may be written to. Every writing transaction checks both."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from sqlalchemy import Connection, or_, select

from ctcore.catalog.tables import setting
from ctcore.errors import CatalogError

State = Literal["active", "complete", "archived"]
STATES: tuple[State, ...] = get_args(State)
OWNER, PLACE, STATE, HELD = "project", "place", "state", "held"  # names of settings


def set_aside_prefix(schema: str) -> str:
    """The prefix of PostgreSQL schemas into which a recovery sets an old catalog aside."""
    return f"{schema[:50]}_aside_"


@dataclass(frozen=True)
class ProjectState:
    """The state of a project: since when, by whom, and why. Without a record, a project is active."""

    state: State = "active"
    at: str = ""
    by: str = ""
    reason: str = ""

    @property
    def words(self) -> str:
        return f"{self.state} since {self.at} by {self.by}: {self.reason}" if self.at else self.state

    @property
    def is_archived(self) -> bool:
        return self.state == "archived"

    def text(self) -> str:
        return json.dumps(asdict(self))


_SETTINGS = select(setting.c.name, setting.c.value).where(
    # `in_` is written out anew each time that it is executed
    or_(*(setting.c.name == name for name in (OWNER, PLACE, STATE, HELD)))
)


def settings_of(connection: Connection) -> dict[str, str]:
    return {row.name: row.value for row in connection.execute(_SETTINGS)}


def project_state_of(known: Mapping[str, str]) -> ProjectState:
    return ProjectState(**json.loads(known[STATE])) if STATE in known else ProjectState()


def refusal_text(project_id: str, life: ProjectState) -> str:
    """The error of every refused write."""
    way = f"`ct projects open {project_id} --reason TEXT`"
    return f"{project_id} is {life.words}; nothing was written. To change it: {way}"


def held_text(value: str) -> str:
    """The error of every command while the lost part may have held a revocation."""
    said = json.loads(value)
    parts = [_lost(key) for key in said["lost"]]
    if said["others"]:
        parts.append(f"{said['others']} event{'s' * (said['others'] != 1)} of another history had to be set aside")
    if said["more"]:
        parts.append("more may be lost, and nothing tells what")
    return (
        f"{'; '.join(parts)}. A consent may have been taken back there, so nobody is used until somebody has looked: "
        "say again what your forms say (`ct consent set`), then `ct recover --accept-loss --reason TEXT`"
    )


def _lost(key: str) -> str:
    first, dash, last = key.partition("-")
    if not dash:
        return f"event {first} is not what was written"
    return f"event {first} is lost" if first == last else f"events {first} to {last} are lost"


def check_owner(known: Mapping[str, str], project_id: str, root: Path, place: str, shared: bool) -> None:
    """CatalogError where this is the catalog of another project, or of another folder with the same ID."""
    owner = known.get(OWNER, project_id)
    if owner != project_id:
        raise CatalogError(
            f"{place} is the catalog of the project {owner}, and {root / 'ct.toml'} says {project_id}. An ID does not "
            f"change: write {owner} there again, or, for a new project, move catalog, provenance.jsonl and store away"
        )
    home = Path(known.get(PLACE, root))
    if shared and home != root and _is_another(home, root, project_id):
        raise CatalogError(
            f"two folders have the ID {project_id} in one database ({place}): {home} and {root}. Give one of them "
            "another [project] id, or remove the one that is not used"
        )


def _is_another(home: Path, root: Path, project_id: str) -> bool:
    """Whether the folder that the catalog knows is still a project of this ID, and not this one by another name."""
    import tomllib

    try:
        if (home / "ct.toml").samefile(root / "ct.toml"):
            return False
        return tomllib.loads((home / "ct.toml").read_text())["project"]["id"] == project_id
    except (OSError, ValueError, LookupError, TypeError):
        return False
