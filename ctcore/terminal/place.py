"""A place on the command line: a file or a folder, and never an empty text."""

from typing import Any

import click


class Place(click.Path):
    """A path. An empty one, as a variable of the shell that is not set, would be the current directory."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("it is empty; name a file or a folder", param, ctx)
        return super().convert(value, param, ctx)
