"""The cluster of the tests is a real one: it reaches each state that runners have to read, and survives its pieces.

The test that takes longest, the time limit, begins with the first one and is looked at in the end.
"""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.slurm import ROOT, SECONDS, SHAPE, Slurm
from tools.slurm.__main__ import main
from tools.slurm.cluster import Cluster
from tools.slurm.processes import marked, wait
from tools.slurm.settings import Places

EAT = "exec {python} -c \"import time; eaten = b'x' * (400 << 20); time.sleep(60)\""
SAVED = 6  # seconds after which slurmctld has written its state: what it had taken since is lost when it is killed
pytestmark = pytest.mark.slow


ONCE = '[ -n "$SLURM_RESTART_COUNT" ] || sleep 300; echo again'


@pytest.fixture(scope="module")
def overdue(slurm: Slurm) -> Iterator[str]:
    """A job that will be over its minute when the other tests have been run."""
    yield slurm.sbatch("sleep 300", "--partition=short", "--nodelist=n1")
    slurm.calm()


@pytest.mark.usefixtures("overdue")
def test_an_array_of_twenty_runs_and_each_task_is_accounted_for(slurm: Slurm) -> None:
    job = slurm.sbatch("echo $SLURM_ARRAY_TASK_ID on $SLURMD_NODENAME", "--array=0-19")
    slurm.wait_for(job, "COMPLETED")
    runs = slurm.wait_for_accounting(job, *["COMPLETED"] * 20)
    assert {run.job for run in runs} == {f"{job}_{task}" for task in range(20)}
    assert {run.exit_code for run in runs} == {"0:0"}
    said = [line for path in slurm.cluster.folder.glob("*.out") for line in path.read_text().splitlines()]
    assert {line.split()[0] for line in said if " on n" in line} == {str(task) for task in range(20)}


def test_both_nodes_take_jobs(slurm: Slurm) -> None:
    jobs = {node: slurm.sbatch("hostname; echo $SLURMD_NODENAME", f"--nodelist={node}") for node in ("n1", "n2")}
    for node, job in jobs.items():
        slurm.wait_for(job, "COMPLETED")
        assert slurm.output(job).splitlines()[1] == node
        assert [run.node for run in slurm.wait_for_accounting(job, "COMPLETED")] == [node]


def test_an_array_beyond_the_limit_is_refused(slurm: Slurm) -> None:
    slurm.command("sbatch", "--test-only", f"--array=0-{SHAPE.max_array - 1}", "--wrap=true")
    refused = slurm.cluster.ask("sbatch", f"--array=0-{SHAPE.max_array}", "--wrap=true")
    assert refused.returncode == 1 and "Invalid job array specification" in refused.stderr


def test_a_job_that_says_it_failed_is_failed(slurm: Slurm) -> None:
    job = slurm.sbatch("exit 3")
    slurm.wait_for(job, "FAILED")
    assert [run.exit_code for run in slurm.wait_for_accounting(job, "FAILED")] == ["3:0"]


def test_a_job_over_its_memory_is_killed_by_the_kernel(slurm: Slurm) -> None:
    state, code = ("OUT_OF_MEMORY", "0:125") if slurm.cluster.places.limits_memory() else ("FAILED", "0:9")
    job = slurm.sbatch(EAT.format(python=sys.executable), "--mem=100")
    slurm.wait_for(job, state)
    assert [run.exit_code for run in slurm.wait_for_accounting(job, state)] == [code]


def test_a_cancelled_job_says_by_whom(slurm: Slurm) -> None:
    waiting, working = slurm.sbatch("sleep 300", "--hold"), slurm.sbatch("sleep 300")
    slurm.wait_for(working, "RUNNING")
    slurm.command("scancel", waiting, working)
    for job in (waiting, working):
        slurm.wait_for(job, "CANCELLED")
        slurm.wait_for_accounting(job, f"CANCELLED by {os.getuid()}")


def test_a_job_that_ignores_the_signal_dies_with_its_children(slurm: Slurm) -> None:
    job = slurm.sbatch("trap '' TERM; sh -c 'sleep 298; true' & echo $!; wait")
    slurm.wait_for(job, "RUNNING")
    assert wait(lambda: bool(slurm.output(job)), 10)
    child = Path("/proc") / slurm.output(job).strip()
    assert child.exists()
    slurm.command("scancel", job)
    slurm.wait_for(job, "CANCELLED")
    assert wait(lambda: not child.exists(), 10)


def test_a_requeued_job_runs_again_under_its_number(slurm: Slurm) -> None:
    job = slurm.sbatch(ONCE)
    slurm.wait_for(job, "RUNNING")
    slurm.command("scontrol", "requeue", job)
    slurm.wait_for(job, "COMPLETED")
    slurm.wait_for_accounting(job, "REQUEUED", "COMPLETED")
    assert slurm.output(job).splitlines()[-1] == "again"


def test_a_better_partition_takes_the_node(slurm: Slurm) -> None:
    """The job that may be requeued is, the other one ends as PREEMPTED."""
    low = ("--partition=low", "--nodelist=n2", "--cpus-per-task=4")
    again, ended = slurm.sbatch(ONCE, *low, "--requeue"), slurm.sbatch(ONCE, *low, "--no-requeue")
    for job in (again, ended):
        slurm.wait_for(job, "RUNNING")
    better = slurm.sbatch("true", "--partition=high", "--nodelist=n2", "--exclusive")
    slurm.wait_for(ended, "PREEMPTED")
    slurm.wait_for(better, "COMPLETED")
    slurm.wait_for(again, "COMPLETED")
    slurm.wait_for_accounting(ended, "PREEMPTED")
    slurm.wait_for_accounting(again, "PREEMPTED", "COMPLETED")


def test_a_crashed_node_fails_its_jobs_when_it_is_missed(slurm: Slurm) -> None:
    """Half a minute: Slurm waits before it believes it."""
    again = slurm.sbatch(ONCE, "--nodelist=n2", "--requeue")
    ended = slurm.sbatch("echo $$; exec sleep 300", "--nodelist=n2", "--no-requeue")
    for job in (again, ended):
        slurm.wait_for(job, "RUNNING")
    assert wait(lambda: bool(slurm.output(ended)), 10)
    slurm.cluster.crash("n2")
    assert wait(lambda: not Path("/proc", slurm.output(ended).strip(), "cwd").exists(), 1)
    assert set(slurm.queue(ended).values()) == {"RUNNING"}
    slurm.wait_for(ended, "NODE_FAIL")
    slurm.cluster.start("n2")
    slurm.wait_for(again, "COMPLETED")
    slurm.wait_for_accounting(ended, "NODE_FAIL")
    slurm.wait_for_accounting(again, "NODE_FAIL", "COMPLETED")


def test_an_administrator_takes_a_node_down_and_it_comes_back(slurm: Slurm) -> None:
    ended = slurm.sbatch("sleep 300", "--nodelist=n2", "--no-requeue")
    slurm.wait_for(ended, "RUNNING")
    slurm.command("scontrol", "update", "nodename=n2", "state=down", "reason=test")
    slurm.wait_for(ended, "NODE_FAIL", seconds=5)
    assert wait(lambda: slurm.cluster.node_works("n2"), 30)


@pytest.mark.parametrize(("gone", "after"), [("stop", 0), ("kill", SAVED)])
def test_jobs_survive_the_controller(slurm: Slurm, gone: str, after: int) -> None:
    """One that ends meanwhile, one that goes on, and one that waits."""
    ends, goes_on = slurm.sbatch(f"sleep {after + 3}; echo end"), slurm.sbatch("sleep 300")
    waits = slurm.sbatch("true", "--hold")
    for job in (ends, goes_on):
        slurm.wait_for(job, "RUNNING")
    assert not wait(lambda: slurm.output(ends) == "end\n", after)
    getattr(slurm.cluster, gone)("slurmctld")
    assert wait(lambda: slurm.output(ends) == "end\n", 10)
    slurm.cluster.start("slurmctld")
    slurm.wait_for(ends, "COMPLETED")
    assert set(slurm.queue(goes_on).values()) == {"RUNNING"}
    assert set(slurm.queue(waits).values()) == {"PENDING"}
    slurm.command("scancel", goes_on, waits)
    slurm.wait_for_accounting(ends, "COMPLETED")


def test_accounting_that_was_down_knows_the_jobs_later(slurm: Slurm) -> None:
    slurm.cluster.stop("slurmdbd")
    asked = slurm.cluster.ask("sacct")
    assert asked.returncode == 1 and "Connection refused" in asked.stderr
    job = slurm.sbatch("true", "--array=0-2")
    slurm.wait_for(job, "COMPLETED")
    slurm.cluster.start("slurmdbd")
    slurm.wait_for_accounting(job, *["COMPLETED"] * 3)


def test_a_job_over_its_time_is_ended(slurm: Slurm, overdue: str) -> None:
    """Up to half a minute late, and with either exit code: 0:15 where the controller was restarted meanwhile."""
    slurm.wait_for(overdue, "TIMEOUT", seconds=120)
    assert slurm.wait_for_accounting(overdue, "TIMEOUT")[0].exit_code in ("0:0", "0:15")
    assert "DUE TO TIME LIMIT" in slurm.output(overdue)


CHILD = """
from tests.helpers.slurm import Shape, running
with running(Shape(nodes=1)) as own:
    job = own.sbatch("trap '' TERM; sleep 300 & wait")
    own.wait_for(job, "RUNNING")
    print(own.cluster.folder, job, flush=True)
    input()
"""


def test_a_second_cluster_ends_with_killed_tests(slurm: Slurm) -> None:
    command = [sys.executable, "-c", CHILD]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        folder, job = child.stdout.readline().decode().split()
        places = Places(Path(folder))
        assert job == "1" and len(list(marked(places.folder, places.conf))) > 5
        os.kill(child.pid, signal.SIGKILL)
    assert wait(lambda: not list(marked(places.folder, places.conf)) and not places.folder.exists(), 30)
    assert not places.cgroup.exists()
    assert all(slurm.cluster.state().values())


def test_a_cgroup_goes_once_the_kernel_lets_go_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder stands in for it, which cannot be removed either as long as something is in it."""
    monkeypatch.setattr("tools.slurm.settings.CGROUPS", tmp_path)
    places = Places(tmp_path / "cluster")
    ending = places.cgroup / "slurm_n1" / "job_1" / "process"
    ending.parent.mkdir(parents=True)
    ending.touch()
    assert not places.remove_cgroup()
    ending.unlink()
    assert places.remove_cgroup() and not places.cgroup.exists()
    assert places.remove_cgroup(), "a second time"


def test_by_hand_a_cluster_is_started_stopped_and_started_again(tmp_path: Path) -> None:
    """In a folder whose path is too long for sockets. Accounting keeps what was run."""
    folder = tmp_path / ("long" * 20)
    cluster = Cluster(folder)
    try:
        assert main(["status", str(folder)]) == 3
        assert main(["up", str(folder), "--nodes=1"]) == 0
        job = cluster.ask("sbatch", "--parsable", "--wait", "--output=/dev/null", "--wrap=true").stdout.strip()
        assert main(["status", str(folder)]) == 0
        assert main(["up", str(folder), "--nodes=2"]) == 1
        assert main(["down", str(folder)]) == 0
        assert list(marked(cluster.folder, cluster.places.conf)) == []
        assert main(["status", str(folder)]) == 1
        assert main(["up", str(folder)]) == 0
        said = ("sacct", "-X", "-n", "-P", "-o", "JobID,State")  # accounting is a few seconds late after a start
        assert wait(lambda: cluster.ask(*said).stdout == f"{job}|COMPLETED\n", SECONDS), cluster.ask(*said)
        assert main(["stop", str(folder), "n2"]) == 1
    finally:
        assert main(["down", str(folder), "--remove"]) == 0
    assert not folder.exists() and not cluster.places.run.is_symlink()


def test_tests_of_the_cluster_share_one_worker(tmp_path: Path) -> None:
    """With a stand-in for the cluster, and our collection."""
    (tmp_path / "conftest.py").write_text("from tests.conftest import pytest_itemcollected")
    fixture = "import pytest, time\nslurm = pytest.fixture(lambda: time.sleep(0.1))\n"
    (tmp_path / "test_six.py").write_text(fixture + "".join(f"def test_{n}(slurm): ...\n" for n in range(6)))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-v",
        "-n",
        "2",
        "--dist",
        "loadgroup",
        "-p",
        "no:cacheprovider",
        tmp_path,
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout
    workers = [line.split("]")[0] for line in said.splitlines() if line.startswith("[gw") and "PASSED" in line]
    assert len(workers) == 6 and len(set(workers)) == 1, said


def test_the_administrator_gives_a_drained_node_back(quiet_slurm: Slurm) -> None:
    quiet_slurm.command("scontrol", "update", "nodename=n2", "state=drain", "reason=test")
    assert quiet_slurm.administer() == 1
    assert wait(lambda: quiet_slurm.cluster.node_works("n2"), 10)


def test_a_machine_without_slurm_skips_and_ci_fails(tmp_path: Path) -> None:
    """A Python that finds no programs."""
    test = tmp_path / "test_one.py"
    test.write_text("def test_one(slurm) -> None: ...\n")
    (tmp_path / "conftest.py").write_text(
        textwrap.dedent("""
            import tools.slurm.processes
            from tests.conftest import *

            tools.slurm.processes.SYSTEM = ""
        """)
    )
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "--rootdir", tmp_path, test]
    clean = {name: value for name, value in os.environ.items() if name not in ("CI", "PYTEST_XDIST_WORKER")}
    clean |= {"PATH": str(tmp_path), "PYTHONPATH": str(ROOT)}
    for ci, code, word in (({}, 0, "SKIPPED"), ({"CI": "1"}, 1, "ERROR")):
        said = subprocess.run(command, env=clean | ci, capture_output=True, text=True, check=False)
        assert said.returncode == code and word in said.stdout
        assert "no munged" in said.stdout and "apt-get install slurmctld" in said.stdout
