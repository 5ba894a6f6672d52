"""A store that is not there is a disk that is not mounted, where results are on record."""

from pathlib import Path

import pytest

from ctcore.errors import StoreError
from ctcore.projects.missing_store import refuse_without_store
from tests.helpers.kit import make_all, make_project


def test_only_where_results_are_on_record_a_store_is_missed(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy")
    project.store.root.rename(tmp_path / "before")
    refuse_without_store(project)
    (tmp_path / "before").rename(project.store.root)
    make_all(project)
    refuse_without_store(project)
    project.store.root.rename(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="6 artifacts should be in it; mount its disk") as refused:
        refuse_without_store(project)
    assert refused.value.exit_code == 3
