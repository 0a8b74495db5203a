"""Which schema this code works with, without loading the migration tools (half a second at every start).

Holds true: revisions are numbered by the names of the files in `migrations/versions`, which a test compares with what
Alembic says. Must not: migrate.
"""

from __future__ import annotations

from importlib import resources


def newest_revision() -> str:
    """The revision that `migrate` would bring a database to."""
    folder = resources.files(__package__).joinpath("migrations", "versions")
    return max(file.name.split("_")[0] for file in folder.iterdir() if file.name[0].isdigit())
