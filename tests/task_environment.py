"""Makes the environment of the real task package that tests run, once, and prints its interpreter.

All tests, workers and runs share it, so it is made under a lock and marked when complete.
"""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path

import uv

REQUIREMENT = "fractal-tasks-core==2.1.0"
ENVIRONMENT = Path(__file__).parents[1] / ".tests" / "tasks"


def main() -> None:
    ENVIRONMENT.parent.mkdir(exist_ok=True)
    python = ENVIRONMENT / "bin" / "python"
    complete = ENVIRONMENT / "complete"
    with ENVIRONMENT.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (python.exists() and complete.exists() and complete.read_text() == REQUIREMENT):
            for command in (
                ["venv", "--clear", "--python", sys.executable, str(ENVIRONMENT)],
                ["pip", "install", "--python", str(python), REQUIREMENT],
            ):
                subprocess.run([uv.find_uv_bin(), *command, "--quiet"], check=True, stdout=sys.stderr)
            complete.write_text(REQUIREMENT)
    print(python)


if __name__ == "__main__":
    main()
