"""A project with a joint call that is made elsewhere, and a step below it."""

from collections.abc import Mapping
from pathlib import Path

from ctcore.execution.adopt import AdoptedFiles, Story, adopt
from ctcore.model.node import Node
from ctcore.project import Project
from tests.helpers.kit import ROWS, STEPS, again, make_all, make_project

JOINT = """\
made_elsewhere = true
level = "cohort"
inputs = { counts = "counted" }
references = ["genome"]
role = "assay.library"

[outputs]
vcf = "joint.vcf"

[params]
min_quality = 20
"""
BELOW = '''

@step(level="cohort", inputs={"vcf": "joint"}, outputs={"n": "n.txt"})
def report(call: Call) -> None:
    """The size of the joint call."""
    call.out("n").write_text(str(len(call.one("vcf")["vcf"].read_text())))
'''
NODE: Node = ("joint", "all")
BY = Story("GLnexus at the centre", {"glnexus": "1.4.3"})
LIBRARIES = ("normal", "tumour", "tumour")


def project_with(tmp_path: Path, declared: str = JOINT) -> Project:
    """All is made but the joint call, and what is made from it."""
    rows = [{**row, "library": library} for row, library in zip(ROWS, LIBRARIES, strict=True)]
    project = make_project(tmp_path / "p", rows, STEPS + BELOW)
    (project.root / "steps" / "joint.toml").write_text(declared)
    project = again(project)
    make_all(project)
    return project


def vcf(tmp_path: Path, content: str = "a joint call\n") -> Path:
    """A file as another pipeline left it."""
    path = tmp_path / "joint.vcf"
    path.write_text(content)
    return path


def take(project: Project, path: Path, story: Story = BY, checksums: Mapping[str, str] | None = None) -> None:
    """Adopt it as the joint call of everybody."""
    adopt(project, project.steps["joint"], [AdoptedFiles("all", {"vcf": path}, checksums or {})], story)
