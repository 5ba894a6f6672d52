"""A place on the command line: `ctcore.terminal.place`."""

from pathlib import Path

import click
import pytest

from ctcore.terminal.place import Place


def test_an_empty_place_is_not_the_current_directory() -> None:
    with pytest.raises(click.BadParameter, match="it is empty"):
        Place(path_type=Path).convert("", None, None)
    assert Place(path_type=Path).convert(".", None, None) == Path()
