"""The worker: one file that travels with the job and runs its units; nothing here is imported by it."""

from pathlib import Path

WORKER_FILE = Path(__file__).with_name("run_units.py")
"""The file to run with any Python from 3.8 on: `python run_units.py PLAN.json`."""
