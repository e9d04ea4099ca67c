"""Measures speed, each figure against a floor in the same run: `python -m tests.benchmarks [NAME ...]`."""

from __future__ import annotations

import importlib
import sys

NAMES = ("noop_units", "image_list_update", "projection_warm", "start_up", "zip_many_files")


def main() -> None:
    unknown = set(sys.argv[1:]) - set(NAMES)
    if unknown:
        sys.exit(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(NAMES)}")
    for name in sys.argv[1:] or NAMES:
        print(f"\n{name}", flush=True)
        for figure, value in importlib.import_module(f"tests.benchmarks.{name}").run().items():
            print(f"  {figure:<40} {value:,.3f}", flush=True)


if __name__ == "__main__":
    main()
