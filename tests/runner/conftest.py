"""Fixtures of the runner's suite."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runner.workbench import Workbench


@pytest.fixture
def bench(tmp_path: Path, pilothouse_home: Path) -> Workbench:
    return Workbench(tmp_path)


@pytest.fixture(params=["local", "local_experimental"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run the test on each backend: the same behaviour is asked of all."""
    monkeypatch.setenv("FRACTAL_RUNNER_BACKEND", request.param)
    return request.param
