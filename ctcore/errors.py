"""Every error that a person may see. Its text names the problem, the place and the way out.

One root with an exit code. `except CtError` stands only at the edges: command line, worker, Dagster asset.
"""

from collections.abc import Sequence


class CtError(Exception):
    """The root of all errors of ct. The text names the problem, the place and the next command."""

    exit_code = 1


class Usage(CtError):
    """A wrong call: an unknown node, step, option or place."""

    exit_code = 2


class ProjectError(CtError):
    """The project directory or its ct.toml is missing, unreadable or inconsistent."""


class SheetError(CtError):
    """A sheet has problems, and nothing was written.

    `problems` holds all of them; the text shows the first ones. `places` is for logs: rows and columns without cell
    values, which may be a patient's.
    """

    shown = 200

    def __init__(self, sheet: str, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        many = f"{len(self.problems)} problem" + ("s" if len(self.problems) != 1 else "")
        lines = "\n".join(f"  {problem}" for problem in self.problems[: self.shown])
        if len(self.problems) > self.shown:
            lines += f"\n  … and {len(self.problems) - self.shown} more"
        super().__init__(f"{sheet}: {many}; nothing was written\n{lines}")
        places = list(dict.fromkeys(problem.partition(": ")[0] for problem in self.problems))
        listed = "; ".join(places[:20]) + "; …" * (len(places) > 20)
        self.places = f"{sheet}: {many} ({listed}); nothing was written; `ct register {sheet}` says what and why"


class CatalogError(CtError):
    """The catalog cannot be opened, is of another version, or refuses a change."""


class LostCatalog(CatalogError):
    """The catalog is not there, or is damaged: `ct recover` makes it again."""


class StoreError(CtError):
    """The store cannot be read or written: full, read-only, or damaged."""


class StepError(CtError):
    """A step is declared wrongly, or its function failed."""


class InputError(CtError):
    """An input of a step is missing, truncated, empty or of another kind than it claims."""


class ContractError(CtError):
    """An output breaks its contract; nothing was published."""
