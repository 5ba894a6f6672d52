"""The sheet: one row an assay, read whole, with every problem at once."""

from ctcore.sheet.file_paths import FileClaim
from ctcore.sheet.options import Options
from ctcore.sheet.parse import EntityRow, Sheet, Stored, read_rows, read_sheet
from ctcore.sheet.rows import Rows

__all__ = ["EntityRow", "FileClaim", "Options", "Rows", "Sheet", "Stored", "read_rows", "read_sheet"]
