"""Says where a package is installed. Run by the package's own interpreter: `python -I probe.py NAME`.

Standard library only, and nothing of the package is imported. The last line on stdout is a JSON object:
`{"error": str}` or `{"version": str, "python": "3.11", "manifests": [absolute path, ...]}`, where the manifests are
those that lie directly in a folder which the distribution installed.
"""

from __future__ import annotations

import json
import sys
from importlib import metadata, util
from pathlib import Path

MANIFEST_NAME = "__FRACTAL_MANIFEST__.json"


def _manifests(distribution: metadata.Distribution) -> list[str]:
    """Return the manifests that the distribution's list of files names, or that lie in a package of its name."""
    listed = [
        distribution.locate_file(file)
        for file in distribution.files or []
        if file.name == MANIFEST_NAME and len(file.parts) == 2
    ]
    if not listed:
        # Editable installations list no sources; looking for a top-level package does not import it.
        spec = util.find_spec(distribution.metadata["Name"].replace("-", "_").replace(".", "_"))
        folders = (spec.submodule_search_locations if spec else None) or []
        listed = [Path(folder, MANIFEST_NAME) for folder in folders]
    return [str(path) for path in listed if Path(str(path)).is_file()]


def main(name: str) -> None:
    """Write what is known of the distribution of that name."""
    try:
        distribution = metadata.distribution(name)
        python = ".".join(map(str, sys.version_info[:2]))
        found = {"version": distribution.version, "python": python, "manifests": _manifests(distribution)}
    except metadata.PackageNotFoundError:
        found = {"error": "not installed"}
    sys.stdout.write(f"\n{json.dumps(found)}\n")


if __name__ == "__main__":
    main(sys.argv[1])
