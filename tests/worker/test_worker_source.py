"""The worker is one file for any node: old Pythons read it, and it needs nothing but the standard library."""

from __future__ import annotations

import ast
import sys

from runner_core.worker import WORKER_FILE

OLDEST = (3, 8)


def test_old_pythons_can_read_it():
    ast.parse(WORKER_FILE.read_bytes(), feature_version=OLDEST)


def test_it_imports_the_standard_library_alone():
    imported = set()
    for node in ast.walk(ast.parse(WORKER_FILE.read_bytes())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add(node.module.partition(".")[0])
    assert imported <= sys.stdlib_module_names
