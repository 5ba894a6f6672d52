"""② The one gate: which entities may be used, beneath every read and write.

QC, censoring and consent are added here and nowhere else; a caller never filters by itself.
"""

from sqlalchemy import ColumnElement, FromClause, true


def usable(_entity: FromClause) -> ColumnElement[bool]:
    """The condition under which a row of `entity` (and so its parents) may be used."""
    return true()
