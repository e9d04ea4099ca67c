"""What every test starts from: a home of its own, no settings from outside, and one real task package for all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import hypothesis
import pytest

hypothesis.settings.register_profile("suite", deadline=None)  # a busy machine is not a defect
hypothesis.settings.load_profile("suite")


@pytest.fixture(autouse=True)
def pilothouse_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which this test, and the processes it starts, keep all that pilothouse keeps."""
    for name in list(os.environ):
        if name.startswith(("PILOTHOUSE_", "FRACTAL_")):
            monkeypatch.delenv(name)
    home = tmp_path / "pilothouse-home"
    monkeypatch.setenv("PILOTHOUSE_HOME", str(home))
    return home


@pytest.fixture(scope="session")
def real_tasks_python() -> Path:
    """The interpreter of an environment that holds fractal-tasks-core."""
    script = Path(__file__).with_name("task_environment.py")
    printed = subprocess.run([sys.executable, script], check=True, stdout=subprocess.PIPE, text=True).stdout
    return Path(printed.strip())


def pytest_sessionfinish(session: pytest.Session) -> None:
    """On CI nothing may be left out: a skipped test fails the run."""
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") == "true" and terminal is not None and terminal.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
