"""Fixtures of the suite of the pure rooms."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.pure.small_disk import SmallDisk, small_disk


@pytest.fixture
def disk() -> Iterator[SmallDisk]:
    """A disk that is soon full."""
    with small_disk() as mounted:
        yield mounted
