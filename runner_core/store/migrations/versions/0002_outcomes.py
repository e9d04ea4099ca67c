"""What a package was made from, and how a job ended."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    # Both are nullable, so SQLite adds them in place: no table is rebuilt, no constraint touched.
    op.add_column("task_package", sa.Column("content_hash", sa.String()))
    op.add_column("job", sa.Column("outcome", sa.Text()))
