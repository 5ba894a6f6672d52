"""① The sheet: one row an assay, read whole, with every problem at once."""

from ctcore.sheet.options import Options
from ctcore.sheet.read import EntityRow, FileClaim, Sheet, Stored, read_rows, read_sheet
from ctcore.sheet.table import Rows

__all__ = ["EntityRow", "FileClaim", "Options", "Rows", "Sheet", "Stored", "read_rows", "read_sheet"]
