"""Profiles: what is declared in ct.toml, step and run, and what is asked of Slurm because of it."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctcore.config.settings import read_settings
from ctcore.config.slurm_profiles import GIB, KEYS, Needs, Overrides, Profile, grown_needs, needs_of
from ctcore.errors import ProjectError, Usage
from ctcore.execution.call import StepCall
from ctcore.execution.local import LocalRunner
from ctcore.execution.runners import chosen_profile, runner_of
from ctcore.execution.slurm import submit
from ctcore.execution.slurm.outbox import Outbox, PendingCall
from ctcore.execution.slurm.runner import SlurmRunner
from ctcore.project import Project
from ctcore.step import Resources
from tests.helpers.fake_slurm import FakeSlurm
from tests.helpers.kit import STEPS, TOML, Inline, make, make_project

PLAIN = Profile("x")
CALL = StepCall("a", ("counted", "A1"), "assay", "key", "toy.py", {}, {}, {}, {}, [], [], [], "", None)


def problems(tmp_path: Path, text: str) -> str:
    (tmp_path / "ct.toml").write_text(f"{TOML}\n{text}")
    with pytest.raises(ProjectError) as caught:
        read_settings(tmp_path / "ct.toml")
    return str(caught.value)


def test_a_profile_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "ct.toml").write_text(
        f'{TOML}\n[slurm.big]\npartition = "main"\naccount = "lab"\nmemory_gb = 4\ntime = 90\n'
        'extra = ["--nice=10", "--exclusive"]\nsetup = ["module load samtools"]\nfail = "fast"\npoll = 0.5\n'
    )
    profile = read_settings(tmp_path / "ct.toml").slurm["big"]
    assert (profile.partition, profile.account, profile.memory_gb, profile.time) == ("main", "lab", 4, 90)
    assert (profile.extra, profile.setup) == (("--nice=10", "--exclusive"), ("module load samtools",))
    assert (profile.fail, profile.poll, profile.tries) == ("fast", 0.5, 3)


def test_an_unknown_option_is_refused_with_the_list(tmp_path: Path) -> None:
    said = problems(tmp_path, '[slurm.big]\nqueue = "main"\npartitoin = "main"\n')
    assert "[slurm.big]: unknown key 'queue'; known: " in said
    assert "'partitoin'; did you mean 'partition'?" in said
    assert all(key in said for key in KEYS)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("memory_gb = 0", "a number above 0"),
        ('time = "1:00:00"', "a whole number, 1 or more"),
        ("time = true", "a whole number, 1 or more"),
        ("memory_growth = 0.5", "a number, 1.0 or more"),
        ('setup = "module load x"', "a list of lines is expected"),
        ('setup = ["a\\nb"]', "a list of lines is expected"),
        ("partition = 7", "a text is expected"),
        ('fail = "later"', 'it is "slow" or "fast"'),
        ("tries = 0", "a whole number, 1 or more"),
        ("poll = nan", "a number above 0"),
        ('extra = ["-p main"]', "an option of sbatch is written --name=value"),
        ('extra = ["--mem=4G"]', "--mem is set by ct; use the key memory_gb"),
        ('extra = ["--job-name=x"]', "--job-name is set by ct; leave it out"),
    ],
)
def test_a_value_of_another_kind_is_refused(tmp_path: Path, line: str, said: str) -> None:
    assert said in problems(tmp_path, f"[slurm.big]\n{line}\n")


@pytest.mark.parametrize("name", ["local", "Big", "a b"])
def test_a_profile_has_a_name_of_its_own(tmp_path: Path, name: str) -> None:
    assert "a profile is named with" in problems(tmp_path, f'[slurm."{name}"]\n')


def test_a_run_overrides_the_step_and_the_step_the_profile() -> None:
    profile = Profile("x", cpus=2, memory_gb=2, time=20)
    assert needs_of(PLAIN, Resources(), 0) == Needs(1, 1024, 60)
    assert needs_of(profile, Resources(), 0) == Needs(2, 2048, 20)
    assert needs_of(profile, Resources(cpus=3, memory_gb=3), 0) == Needs(3, 3072, 20)
    assert needs_of(profile, Resources(3, 3, 30), 0, Overrides(4, 0.5, 40)) == Needs(4, 512, 40)


def test_a_step_may_need_more_for_larger_inputs() -> None:
    declared = Resources(memory_gb=lambda gib: 1 + 2 * gib, minutes=lambda gib: 10 * gib)
    assert needs_of(PLAIN, declared, 0) == Needs(1, 1024, 1)
    assert needs_of(PLAIN, declared, 3 * GIB) == Needs(1, 7 * 1024, 30)


def test_a_ceiling_holds_for_whatever_is_asked() -> None:
    profile = Profile("x", max_memory_gb=2, max_time=30)
    assert needs_of(profile, Resources(memory_gb=8, minutes=600), 0, Overrides(minutes=100)) == Needs(1, 2048, 30)


def test_everything_that_a_profile_says_is_in_what_is_submitted(tmp_path: Path) -> None:
    keys = ("partition", "account", "qos", "constraint", "gres", "reservation")
    said = {key: f"some-{key}" for key in keys}
    project = make_project(tmp_path / "toy")
    profile = Profile("x", **said, extra=("--nice=10", "--exclusive"), setup=("module load samtools",))  # type: ignore[arg-type]
    submit.prepare(project, profile, "ct-toy-1", [CALL], Needs(3, 2048, 90), at_once=7)
    text = (submit.folder_of(project, "ct-toy-1") / "array.sh").read_text()
    options = {line.removeprefix("#SBATCH --") for line in text.splitlines() if line.startswith("#SBATCH")}
    assert {f"{key}={value}" for key, value in said.items()} <= options
    assert {"nice=10", "exclusive", "mem=2048M", "cpus-per-task=3", "time=90", "requeue"} <= options
    assert text.index("module load samtools") < text.index("-m ctcore.execution.slurm.worker")
    assert sys.executable in text


def test_too_many_calls_for_an_array_are_split_and_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake, project = FakeSlurm(tmp_path / "fake"), make_project(tmp_path / "toy")
    monkeypatch.setenv("PATH", str(fake.programs), prepend=":")
    calls = [replace(CALL, node=("counted", f"A{at}"), key=f"key{at}") for at in range(8)]
    outbox = Outbox(project, Profile("x", in_flight=4, array_size=3), note=lambda _: None)
    outbox.waiting = [PendingCall(call, Needs(1, 1024, 60)) for call in calls]
    assert [job.id for job in outbox.go(0)] == ["1_0", "1_1", "1_2"]
    assert outbox.go(3) == []  # less than half of what may be there is free
    assert [job.id for job in outbox.go(2)] == ["2_0", "2_1", "2_2"]
    assert outbox.go(5) == []
    assert [job.id for job in outbox.go(0)] == ["3_0", "3_1"] and not outbox
    scripts = [Path(line).read_text() for line in (fake.folder / "submitted").read_text().splitlines()]
    arrays = [line for text in scripts for line in text.splitlines() if line.startswith("#SBATCH --array=")]
    assert [line.partition("=")[2] for line in arrays] == ["0-2%3", "0-2%2", "0-1%2"]


@given(
    st.builds(
        Profile,
        name=st.just("x"),
        memory_growth=st.floats(1, 4),
        time_growth=st.floats(1, 4),
        max_memory_gb=st.none() | st.floats(0.1, 100),
        max_time=st.none() | st.integers(1, 1000),
    ),
    st.sampled_from(["memory", "time"]),
    st.integers(1, 10_000),
    st.integers(1, 1000),
)
def test_another_try_asks_for_more_up_to_the_ceiling(profile: Profile, what: str, memory: int, minutes: int) -> None:
    before = needs_of(profile, Resources(), 0, Overrides(memory_gb=memory / 1024, minutes=minutes))
    after = grown_needs(profile, before, what)  # type: ignore[arg-type]
    if after is None:
        return
    assert (after.memory_mb > before.memory_mb) == (what == "memory")
    assert (after.minutes > before.minutes) == (what == "time")
    assert profile.max_memory_gb is None or after.memory_mb <= round(profile.max_memory_gb * 1024)
    assert profile.max_time is None or after.minutes <= profile.max_time


@pytest.fixture
def project(tmp_path: Path) -> Project:
    steps = STEPS.replace("import Call, step", "import Call, Resources, step\n\nR = Resources(memory_gb=2)")
    steps = steps.replace("params=Counting, ", "params=Counting, resources=R, ", 1)
    return make_project(tmp_path, steps=steps, toml=f"{TOML}\n[slurm.big]\n")


def test_the_environment_or_the_run_chooses_the_profile(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen_profile(project) is None and chosen_profile(project, "local") is None
    assert not isinstance(runner_of(project), SlurmRunner)
    assert isinstance(runner_of(project, "big"), SlurmRunner)
    monkeypatch.setenv("CT_PROFILE", "big")
    assert chosen_profile(project) == Profile("big")
    assert chosen_profile(project, "local") is None
    with pytest.raises(Usage, match=r"no profile 'bigg'; did you mean 'big'\? there is: local, big"):
        chosen_profile(project, "bigg")


def test_a_local_run_needs_no_slurm(project: Project) -> None:
    assert {one.state for one in make(project, "counted", runner=runner_of(project))} == {"made"}
    assert LocalRunner(project).workers == 2


def test_resources_are_no_part_of_a_results_identity(project: Project) -> None:
    make(project, "counted", runner=Inline(project))
    path = project.root / "steps" / "toy.py"
    path.write_text(path.read_text().replace("memory_gb=2", "memory_gb=lambda gib: 3 + gib, cpus=2"))
    after = Project.find(project.root)
    assert callable(after.steps["counted"].resources.memory_gb)
    assert replace(after.steps["counted"].resources, memory_gb=None).cpus == 2
    assert {one.state for one in make(after, "counted")} == {"hit"}


def test_a_compute_node_needs_no_database_or_dagster() -> None:
    """What a job imports before it imports its step: ctcore, and of all that is installed one library."""
    code = (
        "import sys; before = set(sys.modules); import ctcore.execution.slurm.worker; "
        "print(sorted({name.partition('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names))"
    )
    root = Path(submit.__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=root)
    assert done.stdout.strip() == "['blake3', 'ctcore']", done.stderr
