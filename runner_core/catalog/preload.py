"""Imports what tasks import, once. Run by the package's own interpreter: `python -I preload.py SCRIPT ...`.

Standard library only. Each script runs up to its main guard, its own folder first in the path as in a real run, which
leaves the bytecode of all it imports behind. The last line on stdout is a JSON object: script -> why it cannot be
imported, for those that cannot.
"""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path


def main(scripts: list[str]) -> None:
    """Import each script's modules; whatever it raises, `SystemExit` included, is its problem."""
    problems = {}
    for script in scripts:
        sys.path.insert(0, str(Path(script).parent))
        try:
            runpy.run_path(script, run_name="__preload__")
        except BaseException as error:  # noqa: BLE001
            problems[script] = f"{type(error).__name__}: {error}"
        finally:
            del sys.path[0]
    sys.stdout.write(f"\n{json.dumps(problems)}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
