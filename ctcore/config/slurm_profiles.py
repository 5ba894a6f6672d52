"""Slurm profiles of ct.toml, and the resources of one call by profile, step and run."""

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from ctcore.step import Resources

PROFILE_NAME = r"[a-z][a-z0-9_-]{0,31}"
LOCAL = "local"
GIB = 1 << 30
MIB_PER_GIB = 1024
GREATEST = 1e6  # of any number in a profile
Fail = Literal["slow", "fast"]
FAILS: tuple[Fail, ...] = get_args(Fail)


@dataclass(frozen=True)
class Profile:
    """`[slurm.NAME]` in ct.toml. Memory in GiB, times in minutes, polls and grace in seconds."""

    name: str
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gres: str | None = None
    reservation: str | None = None
    cpus: int | None = None
    memory_gb: float | None = None
    time: int | None = None
    extra: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    python: str | None = None
    container: str | None = None
    memory_growth: float = 2.0
    time_growth: float = 2.0
    max_memory_gb: float | None = None
    max_time: int | None = None
    tries: int = 3
    in_flight: int = 256
    array_size: int = 1000
    poll: float = 3.0
    grace: float = 15.0
    fail: Fail = "slow"


@dataclass(frozen=True)
class Needs:
    """The resources that one job requests."""

    cpus: int
    memory_mb: int
    minutes: int


@dataclass(frozen=True)
class Overrides:
    """The resources that a run requests, which override profile and step."""

    cpus: int | None = None
    memory_gb: float | None = None
    minutes: int | None = None


def needs_of(profile: Profile, declared: Resources, read_bytes: int, run: Overrides | None = None) -> Needs:
    """A run goes before the step, the step before the profile; ceilings hold for all of them."""
    run, read_gib = run or Overrides(), read_bytes / GIB
    memory = _first(run.memory_gb, _at(declared.memory_gb, read_gib), profile.memory_gb, 1.0)
    minutes = _first(run.minutes, _at(declared.minutes, read_gib), profile.time, 60)
    cpus = _first(run.cpus, declared.cpus, profile.cpus, 1)
    return _below(profile, Needs(int(cpus), max(1, round(memory * MIB_PER_GIB)), max(1, round(minutes))))


def grown_needs(profile: Profile, before: Needs, what: Literal["memory", "time"]) -> Needs | None:
    """The needs of another try; None where the ceiling was reached already."""
    if what == "memory":
        after = replace(before, memory_mb=round(before.memory_mb * profile.memory_growth))
    else:
        after = replace(before, minutes=round(before.minutes * profile.time_growth + 0.5))
    after = _below(profile, after)
    return None if after == before else after


def _first(*values: float | None) -> float:
    return next(value for value in values if value is not None)


def _at(declared: float | Callable[[float], float] | None, read_gib: float) -> float | None:
    return declared(read_gib) if callable(declared) else declared


def _below(profile: Profile, needs: Needs) -> Needs:
    memory, minutes = needs.memory_mb, needs.minutes
    if profile.max_memory_gb is not None:
        memory = min(memory, round(profile.max_memory_gb * MIB_PER_GIB))
    if profile.max_time is not None:
        minutes = min(minutes, profile.max_time)
    return replace(needs, memory_mb=memory, minutes=minutes)


TEXTS = {"partition", "account", "qos", "constraint", "gres", "reservation", "python", "container"}
LISTS = {"extra", "setup"}
WHOLE = {"cpus", "time", "max_time", "tries", "in_flight", "array_size"}
LEAST = {"memory_growth": 1.0, "time_growth": 1.0, "grace": 0.0}
KEYS = tuple(field.name for field in fields(Profile) if field.name != "name")
_OURS = {"array", "job-name", "output", "error", "chdir", "mem", "cpus-per-task", "time", "requeue", "parsable", "wrap"}


def read_profile(name: str, table: Mapping[str, Any]) -> tuple[Profile, list[str]]:
    """A profile from its table, and everything that is wrong with it."""
    where = f"[slurm.{name}]"
    problems, good = [], {}
    if not re.fullmatch(PROFILE_NAME, name) or name == LOCAL:
        problems.append(f"{where}: a profile is named with a-z, 0-9, _ and -, and not {LOCAL!r}")
    for key, value in table.items():
        if key not in KEYS:
            near = difflib.get_close_matches(key, KEYS, 1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            problems.append(f"{where}: unknown key {key!r}; {hint}known: {', '.join(KEYS)}")
        elif said := _problem(key, value):
            problems.append(f"{where} {key} = {value!r:.80}: {said}")
        else:
            good[key] = tuple(value) if isinstance(value, list) else value
    problems += [f"{where} extra {said}" for said in _extra_problems(good.get("extra", ()))]
    return Profile(name, **good), problems


def _problem(key: str, value: Any) -> str | None:
    """The expected kind of value; None if this value is right."""
    if key in TEXTS:
        return None if _is_line(value) else 'a text is expected, as in "…"'
    if key in LISTS:
        fine = isinstance(value, list) and all(_is_line(one) for one in value)
        return None if fine else 'a list of lines is expected, as in ["…"]'
    if key == "fail":
        return None if value in FAILS else 'it is "slow" or "fast"'
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if key in WHOLE:
        return None if number and isinstance(value, int) and value >= 1 else "a whole number, 1 or more"
    least = LEAST.get(key)
    if least is not None:
        return None if number and least <= value <= GREATEST else f"a number, {least} or more"
    return None if number and 0 < value <= GREATEST else "a number above 0"


def _is_line(value: Any) -> bool:
    return isinstance(value, str) and bool(value) and value.isprintable()


def _extra_problems(extra: Sequence[str]) -> list[str]:
    """Options must be `--name` or `--name=value`. Options by which ct finds its jobs again are refused."""
    found = []
    for option in extra:
        match = re.fullmatch(r"--([a-z][a-z0-9-]*)(=.*)?", option)
        if match is None:
            found.append(f"{option!r}: an option of sbatch is written --name=value")
        elif match[1] in _OURS:
            found.append(f"{option!r}: --{match[1]} is set by ct; {_instead(match[1])}")
    return found


def _instead(option: str) -> str:
    keys = {"mem": "memory_gb", "cpus-per-task": "cpus", "time": "time", "array": "in_flight"}
    return f"use the key {keys[option]}" if option in keys else "leave it out"
