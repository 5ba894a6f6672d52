"""A patient whose consent ends and who is purged, for tests of what a purge leaves."""

from ctcore.deletion.purge import remove
from ctcore.governance.consent import Statement, set_consent
from ctcore.project import Project


def revoke(project: Project, patient: str) -> None:
    """The patient's consent ends."""
    set_consent(project, [patient], Statement("revoked", form="withdrawal form 12"))


def purge_patient(project: Project, patient: str) -> None:
    """The patient's consent ends, and everything that contains them goes."""
    revoke(project, patient)
    remove(project, patient, "asked", patient)
