"""What an installation holds besides modules: the demo, the migrations, the marks for type checkers."""

import subprocess
import sys
import zipfile
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def test_the_wheel_ships_every_file_of_both_packages_and_nothing_else(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(build, cwd=REPOSITORY, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    shipped = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}

    assert shipped == {
        str(path.relative_to(REPOSITORY))
        for package in ("runner_core", "tui")
        for path in (REPOSITORY / package).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert shipped >= {
        "runner_core/demo/make_images.py",
        "runner_core/demo/workflow.json",
        "runner_core/py.typed",
        "tui/py.typed",
    }
    assert any(name.startswith("runner_core/store/migrations/versions/") for name in shipped)
