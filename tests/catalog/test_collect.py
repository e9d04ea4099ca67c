"""Collecting task packages, with real environments and real installations."""

from __future__ import annotations

import os
import select
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from runner_core.catalog.collect import collect_package
from runner_core.catalog.workflows import append_task, create_workflow
from runner_core.failures import BadInput, NotFound, OutOfReach, PilothouseError, Refused
from runner_core.store.models import Dataset, Job, Task, TaskPackage, Workflow
from runner_core.store.queries import list_packages, list_tasks
from runner_core.store.session import Store, open_store

PYTHON = f"py{sys.version_info.major}.{sys.version_info.minor}"


def quiet(_: str) -> None:
    """Take progress and say nothing."""


def output_of(command: str | None) -> str:
    assert command is not None
    return subprocess.run([*shlex.split(command), "--x"], check=True, capture_output=True, text=True).stdout


def environments(envs_dir: Path) -> list[Path]:
    return sorted(path.parent for path in envs_dir.glob("*/*/*/pyvenv.cfg"))


def say(word: str) -> dict[str, str]:
    return {"hello.py": f"print('{word}')\n"}


def use_in_workflow(store: Store, package: TaskPackage) -> None:
    with store.session(write=True) as session:
        task = session.get(Task, package.tasks[0].id)
        assert task is not None
        append_task(create_workflow(session, name="segmentation"), task)


def use_in_job(store: Store, package: TaskPackage) -> None:
    use_in_workflow(store, package)
    with store.session(write=True) as session:
        dataset = Dataset(name="d", zarr_dir="/zarr")
        session.add(dataset)
        session.flush()
        session.add(
            Job(
                workflow_id=session.query(Workflow.id).scalar(),
                dataset_id=dataset.id,
                backend="local",
                first_task_index=0,
                last_task_index=0,
            )
        )


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package index of its own: the wheels in a folder, and no other."""
    (tmp_path / "wheels").mkdir()
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("UV_FIND_LINKS", str(tmp_path / "wheels"))
    return tmp_path / "wheels"


# ----------------------------------------------------------------------------------------------- what can be collected


def test_a_folder_is_built_and_installed_and_its_tasks_run(
    store: Store, envs_dir: Path, source_tree: Callable[..., Path]
) -> None:
    lines: list[str] = []
    package = collect_package(store, str(source_tree()), envs_dir=envs_dir, report=lines.append)
    (task,) = package.tasks
    assert (package.pkg_name, package.version, package.origin) == ("tiny-tasks", "1.0", "folder")
    assert (task.name, task.type, task.version) == ("Say Hello", "parallel", "1.0")
    assert task.source == f"pip_local:tiny_tasks:1.0::{PYTHON}:say_hello"
    assert output_of(task.command_parallel) == "hello ['--x']\n"
    assert package.env_dir is not None
    assert Path(package.env_dir).parent == envs_dir / "tiny-tasks" / "1.0"
    assert any("tiny-tasks" in line for line in lines)


def test_a_wheel_is_installed_with_what_it_requires(
    store: Store, envs_dir: Path, wheel: Callable[..., Path], index: Path
) -> None:
    wheel("dependency", "3.0", scripts={"__init__.py": "word = 'from afar'\n"})
    tiny = wheel(
        scripts={"hello.py": "import dependency\nprint(dependency.word)\n"}, metadata="Requires-Dist: dependency>=3\n"
    )
    package = collect_package(store, str(tiny), envs_dir=envs_dir, report=quiet)
    assert package.origin == "wheel"
    assert output_of(package.tasks[0].command_parallel) == "from afar\n"


def test_characters_that_end_a_path_in_urls_are_fine_in_paths(
    store: Store, tmp_path: Path, wheel: Callable[..., Path], source_tree: Callable[..., Path]
) -> None:
    odd = tmp_path / "h?a#b%20c"
    folder = source_tree(name="other-tasks").rename(tmp_path / "f?a#b%20c")
    for spec in (wheel(folder=odd.name), folder):
        package = collect_package(store, str(spec), envs_dir=odd / "envs", report=quiet)
        assert output_of(package.tasks[0].command_parallel) == "hello ['--x']\n"


def test_a_requirement_takes_the_newest_version_unless_it_says_otherwise(
    store: Store, envs_dir: Path, wheel: Callable[..., Path], index: Path
) -> None:
    for version in ("1.0", "1.10", "1.9"):
        wheel(version=version)
    collect = [
        collect_package(store, spec, envs_dir=envs_dir, report=quiet) for spec in ("Tiny_Tasks", "tiny-tasks<1.10")
    ]
    assert [package.requested for package in collect] == ["tiny-tasks==1.10", "tiny-tasks==1.9"]
    assert collect[0].tasks[0].source == f"pip_remote:tiny_tasks:1.10::{PYTHON}:say_hello"
    with store.session() as session:
        assert [task.version for task in list_tasks(session)] == ["1.10", "1.9"]
    assert len(environments(envs_dir)) == 2


def test_extras_are_installed_and_make_another_environment(
    store: Store, envs_dir: Path, wheel: Callable[..., Path], index: Path
) -> None:
    wheel("dependency", "3.0")
    wheel(metadata="Provides-Extra: more\nRequires-Dist: dependency; extra == 'more'\n")
    plain = collect_package(store, "tiny-tasks==1.0", envs_dir=envs_dir, report=quiet)
    more = collect_package(store, "tiny-tasks[more]==1.0", envs_dir=envs_dir, report=quiet)
    assert more.id != plain.id
    assert more.tasks[0].source == f"pip_remote:tiny_tasks:1.0:more:{PYTHON}:say_hello"
    assert subprocess.run([more.interpreter, "-c", "import dependency"], check=False).returncode == 0
    for same in ("tiny-tasks[more]==1", "Tiny.Tasks[MORE]"):
        assert collect_package(store, same, envs_dir=envs_dir, report=quiet).id == more.id


def test_fractal_tasks_core_is_collected_from_the_package_index() -> None:
    shared = Path(__file__).parents[2] / ".tests" / "catalog"
    shared.mkdir(parents=True, exist_ok=True)
    store = open_store(f"sqlite:///{shared / 'store.db'}")
    package = collect_package(store, "fractal-tasks-core==2.1.0", envs_dir=shared / "envs", report=quiet)
    lines: list[str] = []
    again = collect_package(store, "Fractal.Tasks_Core == 2.1", envs_dir=shared / "envs", report=lines.append)
    assert again.id == package.id
    assert not lines, "the second time nothing is installed"
    types = {task.name: task.type for task in package.tasks}
    assert types["Project Image"] == "parallel"
    assert types["Project Image (HCS Plate)"] == "compound"
    assert types["Import OME-Zarr"] == "converter_non_parallel"
    assert all(Path(word).is_file() for task in package.tasks for word in shlex.split(task.command_parallel or "")), (
        "interpreter and script exist"
    )
    store.dispose()


# ------------------------------------------------------------------------------------------------------ the second time


def test_the_same_wheel_again_gives_the_same_rows_and_runs_nothing(
    store: Store, envs_dir: Path, wheel: Callable[..., Path]
) -> None:
    first = collect_package(store, str(wheel()), envs_dir=envs_dir, report=quiet)
    lines: list[str] = []
    again = collect_package(store, str(wheel(folder="copied")), envs_dir=envs_dir, report=lines.append)
    assert (again.id, [task.id for task in again.tasks]) == (first.id, [task.id for task in first.tasks])
    assert not lines
    assert len(environments(envs_dir)) == 1


def test_another_python_makes_another_environment_and_none_takes_what_there_is(
    store: Store, envs_dir: Path, wheel: Callable[..., Path]
) -> None:
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    first = collect_package(store, str(wheel()), envs_dir=envs_dir, python=here, report=quiet)
    assert collect_package(store, str(wheel()), envs_dir=envs_dir, report=quiet).id == first.id
    with pytest.raises(Refused, match=r"3\.0"):
        collect_package(store, str(wheel()), envs_dir=envs_dir, python="3.0", report=quiet)
    with pytest.raises(BadInput, match="not a Python version: '--help'"):
        collect_package(store, str(wheel()), envs_dir=envs_dir, python="--help", report=quiet)


def test_an_edited_folder_of_the_same_version_runs_the_new_code_in_workflows_that_exist(
    store: Store, envs_dir: Path, source_tree: Callable[..., Path]
) -> None:
    first = collect_package(store, str(source_tree(scripts=say("old"))), envs_dir=envs_dir, report=quiet)
    use_in_workflow(store, first)
    edited = collect_package(store, str(source_tree(scripts=say("new"))), envs_dir=envs_dir, report=quiet)
    with store.session() as session:
        (workflow,) = session.query(Workflow).all()
        assert output_of(workflow.task_list[0].task.command_parallel) == "new\n"
    assert edited.id == first.id
    assert len(environments(envs_dir)) == 1, "nobody uses the old environment"


def test_the_environment_that_a_job_may_use_outlives_its_replacement(
    store: Store, envs_dir: Path, wheel: Callable[..., Path]
) -> None:
    first = collect_package(store, str(wheel(scripts=say("old"))), envs_dir=envs_dir, report=quiet)
    command = first.tasks[0].command_parallel
    use_in_job(store, first)
    collect_package(store, str(wheel(scripts=say("new"))), envs_dir=envs_dir, report=quiet)
    assert output_of(command) == "old\n"
    with store.session(write=True) as session:
        session.query(Job).one().status = "done"
    collect_package(store, str(wheel(scripts=say("newer"))), envs_dir=envs_dir, report=quiet)
    assert len(environments(envs_dir)) == 1


def test_a_changed_package_may_not_lose_a_task_that_a_workflow_uses(
    store: Store, envs_dir: Path, wheel: Callable[..., Path], manifest: Callable[..., dict[str, Any]]
) -> None:
    both = manifest({}, {"name": "Say More"})
    first = collect_package(store, str(wheel(manifest=both)), envs_dir=envs_dir, report=quiet)
    use_in_workflow(store, first)
    with pytest.raises(Refused, match=r"no task 'Say Hello' any more, which is used by workflow 1 'segmentation'"):
        collect_package(store, str(wheel(manifest=manifest({"name": "Say More"}))), envs_dir=envs_dir, report=quiet)
    assert [Path(path) for path in [first.env_dir or ""]] == environments(envs_dir)
    changed = collect_package(store, str(wheel(manifest=manifest({}))), envs_dir=envs_dir, report=quiet)
    assert [task.id for task in changed.tasks] == [first.tasks[0].id]


def test_an_environment_that_was_deleted_by_hand_is_made_again_for_the_same_rows(
    store: Store, envs_dir: Path, wheel: Callable[..., Path]
) -> None:
    first = collect_package(store, str(wheel()), envs_dir=envs_dir, report=quiet)
    Path(shlex.split(first.tasks[0].command_parallel or "")[1]).unlink()
    again = collect_package(store, str(wheel()), envs_dir=envs_dir, report=quiet)
    assert again.id == first.id
    assert output_of(again.tasks[0].command_parallel).startswith("hello")


# ------------------------------------------------------------------------------------------------- when it goes wrong


def refusal(store: Store, spec: object, envs_dir: Path, kind: type[PilothouseError]) -> str:
    """The message of a collection that fails; it is one line, and nothing is left behind."""
    with pytest.raises(kind) as caught:
        collect_package(store, str(spec), envs_dir=envs_dir, report=quiet)
    assert "\n" not in str(caught.value)
    assert not environments(envs_dir)
    assert not list(envs_dir.glob("*/*/*"))
    with store.session() as session:
        assert not list_packages(session)
    return str(caught.value)


@pytest.mark.parametrize(
    ("spec", "kind", "words"),
    [
        ("--index-url=http://evil", BadInput, "not a package"),
        ("-r requirements.txt", BadInput, "not a package"),
        ("tiny\x1b[2Jtasks", BadInput, r"'tiny\x1b[2Jtasks'"),
        ("tiny-tasks\n--pre", BadInput, "not a package"),
        ("tiny tasks", BadInput, "not a requirement"),
        ("tiny-tasks=1", BadInput, "not a requirement"),
        ("tiny-tasks; python_version>'3'", BadInput, "drop what follows"),
        ("tiny-tasks @ git+https://example.org/x", BadInput, "not taken from URLs"),
        ("https://example.org/tiny-1.0-py3-none-any.whl", BadInput, "not taken from URLs"),
        ("", BadInput, "not a package"),
        ("./nowhere", NotFound, "no file or folder './nowhere'"),
        ("~nobody-at-all/x", NotFound, "no file or folder"),
        ("tiny-1.0-py3-none-any.whl", NotFound, "no file or folder"),
        ("a" * 300, BadInput, "not the name of a package"),
    ],
)
def test_what_is_no_package_never_reaches_the_installer(
    store: Store, envs_dir: Path, spec: str, kind: type[PilothouseError], words: str
) -> None:
    assert words in refusal(store, spec, envs_dir, kind)
    assert not envs_dir.exists()


def test_a_package_or_version_that_does_not_exist_is_not_found(
    store: Store, envs_dir: Path, wheel: Callable[..., Path], index: Path
) -> None:
    wheel()
    message = refusal(store, "tiny-tasks==2.0", envs_dir, NotFound)
    assert "there is no version of tiny-tasks==2.0" in message
    log = envs_dir / "tiny-tasks" / "collect.log"
    assert str(log) in message
    assert "there is no version" in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600
    assert "not found" in refusal(store, "other-tasks", envs_dir, NotFound)


def test_an_index_that_does_not_answer_is_out_of_reach(
    store: Store, envs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("UV_NO_CACHE", "1")
    assert "127.0.0.1:9" in refusal(store, "tiny-tasks==2.0", envs_dir, OutOfReach)


def test_a_package_without_a_manifest_is_no_task_package(
    store: Store, envs_dir: Path, wheel: Callable[..., Path]
) -> None:
    assert "no __FRACTAL_MANIFEST__.json" in refusal(store, wheel(manifest=""), envs_dir, Refused)


def test_a_wrong_manifest_is_refused_with_its_field(
    store: Store, envs_dir: Path, wheel: Callable[..., Path], manifest: Callable[..., dict[str, Any]]
) -> None:
    wrong = manifest({}, {"name": "Other", "executable_parallel": "../hello.py"})
    message = refusal(store, wheel(manifest=wrong), envs_dir, BadInput)
    assert "the manifest of tiny-tasks 1.0: task_list[1].executable_parallel: must be a path inside" in message
    missing = manifest({"executable_parallel": "tasks/absent.py"})
    message = refusal(store, wheel(manifest=missing), envs_dir, BadInput)
    assert "task_list[0].executable_parallel: the package has no file 'tasks/absent.py'" in message
    assert "not valid JSON" in refusal(store, wheel(manifest="{"), envs_dir, BadInput)


def test_a_build_that_fails_says_why(store: Store, envs_dir: Path, source_tree: Callable[..., Path]) -> None:
    folder = source_tree()
    pyproject = folder / "pyproject.toml"
    pyproject.write_text(pyproject.read_text().replace("[project]", "[project]\ndependencies = ['no requirement']"))
    message = refusal(store, folder, envs_dir, Refused)
    assert "Failed to build" in message
    assert "ValueError: Dependency #1" in message
    pyproject.write_text("[project]\nname = ")
    assert "pyproject.toml' cannot be read" in refusal(store, folder, envs_dir, BadInput)
    pyproject.unlink()
    assert "it has no pyproject.toml" in refusal(store, folder, envs_dir, BadInput)


def test_a_place_that_cannot_be_written_to_is_one_clear_line(
    store: Store, tmp_path: Path, wheel: Callable[..., Path]
) -> None:
    (tmp_path / "occupied").write_text("")
    with pytest.raises(Refused, match="cannot write below"):
        collect_package(store, str(wheel()), envs_dir=tmp_path / "occupied", report=quiet)


def test_a_full_disk_is_told_and_leaves_no_environment(tmp_path: Path, wheel: Callable[..., Path]) -> None:
    spec = wheel(scripts={"big.txt": os.urandom(2_000_000).hex()})
    script = """
import sys
from pathlib import Path
from runner_core.catalog.collect import collect_package
from runner_core.failures import Refused
from runner_core.store.session import open_store
small = Path(sys.argv[1])
try:
    collect_package(open_store(sys.argv[2]), sys.argv[3], envs_dir=small / "envs", report=print)
except Refused as error:
    print(error)
print(list(small.glob("envs/*/*/*")))
"""
    (tmp_path / "small").mkdir()
    alone = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    mounted = 'mount -t tmpfs -o size=3m tmpfs "$1" && exec "$2" -c "$3" "$1" "$4" "$5"'
    store_url = f"sqlite:///{tmp_path / 'other.db'}"
    command = ["unshare", *alone, "--mount", "sh", "-c", mounted, "sh", tmp_path / "small", sys.executable, script]
    ended = subprocess.run([*command, store_url, spec], capture_output=True, text=True, check=False)
    *_, said, left = ended.stdout.splitlines()
    assert "No space left on device" in said, ended.stderr
    assert said.endswith("make room where the environments are kept")
    assert left == "[]"


def test_a_task_that_cannot_be_imported_is_collected_with_a_warning(
    store: Store, envs_dir: Path, wheel: Callable[..., Path]
) -> None:
    lines: list[str] = []
    broken = wheel(scripts={"hello.py": "import no_such_module\n"})
    collect_package(store, str(broken), envs_dir=envs_dir, report=lines.append)
    assert "warning: hello.py cannot be imported here: ModuleNotFoundError: No module named 'no_such_module'" in lines


# ------------------------------------------------------------------------------------------- at the same time, and ends

COLLECT = """
import sys
from pathlib import Path
from runner_core.catalog.collect import collect_package
from runner_core.store.session import open_store
collect_package(open_store(sys.argv[1]), sys.argv[2], envs_dir=Path(sys.argv[3]), report=print)
"""


def test_two_collections_at_the_same_time_make_one_environment(
    store: Store, envs_dir: Path, wheel: Callable[..., Path]
) -> None:
    spec = str(wheel())
    with ThreadPoolExecutor(3) as threads:
        started = [threads.submit(collect_package, store, spec, envs_dir=envs_dir, report=quiet) for _ in range(3)]
    assert len({done.result().id for done in started}) == 1
    assert len(environments(envs_dir)) == 1


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_a_collection_that_is_ended_halfway_leaves_nothing_that_counts(
    store: Store, envs_dir: Path, tmp_path: Path, wheel: Callable[..., Path], end: signal.Signals
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    spec = str(wheel(scripts={"hello.py": f"open({str(gate)!r}).read()\n"}))
    command = [sys.executable, "-c", COLLECT, store.url, spec, str(envs_dir)]
    with (
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process,
        gate.open("w") as writer,  # opens once the import waits at the other end
    ):
        assert len(environments(envs_dir)) == 1
        process.send_signal(end)
        process.wait()
        nobody_reads = select.poll()
        nobody_reads.register(writer, 0)
        assert nobody_reads.poll(20_000), "what the collection had started has ended too"
    with store.session() as session:
        assert not list_packages(session)
    assert len(environments(envs_dir)) == (1 if end == signal.SIGKILL else 0)
    package = collect_package(store, str(wheel()), envs_dir=envs_dir, report=quiet)
    assert environments(envs_dir) == [Path(package.env_dir or "")]


def test_variables_that_point_elsewhere_do_not_lead_the_installer_astray(
    store: Store, envs_dir: Path, tmp_path: Path, wheel: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "UV_TARGET"):
        monkeypatch.setenv(name, str(tmp_path / "elsewhere"))
    package = collect_package(store, str(wheel()), envs_dir=envs_dir, report=quiet)
    assert package.interpreter.startswith(str(envs_dir))
    assert not (tmp_path / "elsewhere").exists()
