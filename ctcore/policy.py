"""② The one gate: which entities may be used, beneath every read and write.

QC, censoring and consent are added here and nowhere else; a caller never filters by itself.
"""

from sqlalchemy import Connection


def barred(_connection: Connection) -> list[int]:
    """The entities (`entity.seq`) that may not be used by themselves; what belongs to them may not be used either."""
    return []
