"""① The sheet: one row an assay, read whole, with every problem at once."""

from ctcore.sheet.read import EntityRow, FileClaim, Sheet, read_sheet

__all__ = ["EntityRow", "FileClaim", "Sheet", "read_sheet"]
