"""Packages of environments that exist already, and the removal of packages."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import uv

from runner_core.catalog.collect import collect_package, register_environment
from runner_core.catalog.packages import remove_package
from runner_core.catalog.workflows import append_task, create_workflow
from runner_core.failures import BadInput, NotFound, Refused
from runner_core.store.models import Task, TaskPackage, Workflow
from runner_core.store.queries import list_packages, list_tasks
from runner_core.store.session import Store


def run_uv(*arguments: object) -> None:
    subprocess.run([uv.find_uv_bin(), "--quiet", *map(str, arguments)], check=True)


@pytest.fixture
def own_python(tmp_path: Path, wheel: Callable[..., Path]) -> Path:
    """The interpreter of an environment that is not ours, with tiny-tasks 1.0 in it."""
    run_uv("venv", "--python", sys.executable, tmp_path / "own")
    python = tmp_path / "own" / "bin" / "python"
    run_uv("pip", "install", "--python", python, wheel())
    return python


def hold_in_workflow(store: Store, task_id: int) -> None:
    with store.session(write=True) as session:
        task = session.get(Task, task_id)
        assert task is not None
        append_task(create_workflow(session, name="keeps it"), task)


def test_an_environment_that_exists_gives_its_tasks(store: Store, own_python: Path) -> None:
    package = register_environment(store, interpreter=own_python, package="Tiny_Tasks")
    (task,) = package.tasks
    command = shlex.split(task.command_parallel or "")
    assert command[0] == str(own_python)
    assert Path(command[1]).name == "hello.py"
    assert (package.origin, package.env_dir, package.version) == ("interpreter", None, "1.0")
    assert task.source.startswith("interpreter:tiny_tasks:1.0:")


def test_an_environment_that_was_upgraded_keeps_its_rows(
    store: Store, own_python: Path, wheel: Callable[..., Path]
) -> None:
    first = register_environment(store, interpreter=own_python, package="tiny-tasks")
    hold_in_workflow(store, first.tasks[0].id)
    run_uv("pip", "install", "--python", own_python, wheel(version="2.0"))
    register_environment(store, interpreter=own_python, package="tiny-tasks")
    with store.session() as session:
        assert [(task.id, task.version) for task in list_tasks(session)] == [(first.tasks[0].id, "2.0")]


def test_an_editable_installation_is_found(store: Store, own_python: Path, source_tree: Callable[..., Path]) -> None:
    folder = source_tree("edited-tasks")
    run_uv("pip", "install", "--python", own_python, "--editable", folder)
    package = register_environment(store, interpreter=own_python, package="edited-tasks")
    assert shlex.split(package.tasks[0].command_parallel or "")[1] == str(folder / "src" / "edited_tasks" / "hello.py")


def test_an_environment_without_the_package_is_told_from_one_without_python(
    store: Store, own_python: Path, tmp_path: Path
) -> None:
    with pytest.raises(NotFound, match="other-tasks is not installed"):
        register_environment(store, interpreter=own_python, package="other-tasks")
    with pytest.raises(NotFound, match="there is no interpreter"):
        register_environment(store, interpreter=tmp_path / "nowhere" / "python", package="tiny-tasks")
    with pytest.raises(Refused, match="not a working Python"):
        register_environment(store, interpreter=Path("/bin/true"), package="tiny-tasks")
    (tmp_path / "text").write_text("")
    with pytest.raises(Refused, match="not a working Python: Permission denied"):
        register_environment(store, interpreter=tmp_path / "text", package="tiny-tasks")
    with pytest.raises(BadInput, match="not the name of a package"):
        register_environment(store, interpreter=own_python, package="-c import os")


def test_a_package_goes_with_its_environment_once_no_workflow_uses_it(
    store: Store, envs_dir: Path, wheel: Callable[..., Path]
) -> None:
    package = collect_package(store, str(wheel()), envs_dir=envs_dir, report=lambda _: None)
    hold_in_workflow(store, package.tasks[0].id)
    with pytest.raises(Refused, match=r"tiny-tasks 1\.0 is used by workflow 1 'keeps it'"):
        remove_package(store, package.id, envs_dir=envs_dir)
    assert Path(package.interpreter).exists()
    with store.session(write=True) as session:
        session.delete(session.query(Workflow).one())
    remove_package(store, package.id, envs_dir=envs_dir)
    assert not Path(package.interpreter).exists()
    assert not (envs_dir / "tiny-tasks" / "1.0").exists()
    with store.session() as session:
        assert not list_packages(session)
    with pytest.raises(NotFound, match="no task package"):
        remove_package(store, package.id, envs_dir=envs_dir)


@pytest.mark.parametrize("place", ["elsewhere", "envs/tiny-tasks", "envs/tiny-tasks/1.0", "envs/tiny-tasks/link/env"])
def test_a_folder_that_is_no_environment_of_ours_is_never_removed(store: Store, tmp_path: Path, place: str) -> None:
    precious = tmp_path / "precious" / "env"
    precious.mkdir(parents=True)
    (tmp_path / "envs" / "tiny-tasks" / "1.0").mkdir(parents=True)
    (tmp_path / "envs" / "tiny-tasks" / "link").symlink_to(tmp_path / "precious")
    env_dir = tmp_path / place
    env_dir.mkdir(exist_ok=True)
    with store.session(write=True) as session:
        package = TaskPackage(
            pkg_name="tiny-tasks",
            version="1.0",
            origin="pypi",
            requested="tiny-tasks==1.0",
            interpreter="/x",
            env_dir=str(env_dir),
        )
        session.add(package)
    remove_package(store, package.id, envs_dir=tmp_path / "envs")
    assert env_dir.is_dir()
    assert precious.is_dir()
