"""Lists are cheap however much the store holds, and things are found by id or name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest
from sqlalchemy import event, insert
from sqlalchemy.orm import Session

from runner_core.failures import NotFound, Refused
from runner_core.model import JobStatus
from runner_core.store.models import Dataset, Job, Task, TaskPackage, Workflow, WorkflowTask
from runner_core.store.queries import (
    find_dataset,
    find_workflow,
    list_datasets,
    list_jobs,
    list_packages,
    list_tasks,
    list_workflows,
    submitted_job_id,
)
from runner_core.store.session import Store

MOMENT = datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC)

GROWING = (
    "images", "history", "log", "project_dump", "workflow_dump", "dataset_dump", "docs_info",
    "args_schema_non_parallel", "args_schema_parallel",
)  # fmt: skip


@pytest.fixture
def filled(store: Store) -> Store:
    """Two packages, two workflows (one empty), two datasets, three jobs."""
    with store.session(write=True) as session:
        for version in ("1.0", "2.0"):
            package = TaskPackage(
                pkg_name="demo-tasks",
                version=version,
                origin="pypi",
                requested=f"demo-tasks=={version}",
                interpreter=f"/env{version}/bin/python",
                env_dir=f"/env{version}",
                timestamp_created=MOMENT,
            )
            package.tasks = [
                Task(
                    name=name,
                    type="compound",
                    source=f"demo-tasks:{version}:{name}",
                    version=version,
                    command_non_parallel=f"python {name}_init.py",
                    command_parallel=f"python {name}.py",
                    input_types={"is_3D": True},
                    output_types={"blurred": True},
                    category="Registration",
                    tags=["2D"],
                    docs_info="long",
                    args_schema_parallel={"long": True},
                )
                for name in ("blur", "measure")
            ]
            session.add(package)
        session.flush()
        used = Workflow(name="used", timestamp_created=MOMENT)
        used.task_list = [WorkflowTask(order=order, task_id=task_id) for order, task_id in enumerate([1, 2, 1])]
        session.add_all([used, Workflow(name="empty", timestamp_created=MOMENT)])
        session.add_all([Dataset(name=name, zarr_dir="/d", images=[{}, {}], timestamp_created=MOMENT) for name in "ab"])
        session.flush()
        for status, workflow_id, dataset_id in (("done", 1, 1), ("submitted", 1, 1), ("failed", None, None)):
            job = Job(status=status, workflow_id=workflow_id, dataset_id=dataset_id, backend="local", log="long")
            job.first_task_index, job.last_task_index, job.start_timestamp = 0, 2, MOMENT
            job.outcome = None if status == "submitted" else {"phase": status}
            session.add(job)
            session.flush()
    return store


@contextmanager
def statements(store: Store) -> Iterator[list[str]]:
    """The SELECT statements that are sent meanwhile."""
    sent: list[str] = []

    def note(_connection, _cursor, statement: str, *_rest) -> None:
        if statement.startswith("SELECT"):
            sent.append(statement)

    event.listen(store.engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(store.engine, "before_cursor_execute", note)


class TestLists:
    def test_jobs_are_listed_newest_first_with_the_names_that_belong_to_them(self, filled: Store):
        with filled.session() as session:
            rows = list_jobs(session)

        assert [(row.id, row.status, row.workflow_name, row.dataset_name, row.outcome) for row in rows] == [
            (3, "failed", None, None, {"phase": "failed"}),
            (2, "submitted", "used", "a", None),
            (1, "done", "used", "a", {"phase": "done"}),
        ]
        assert (rows[1].start_timestamp, rows[1].first_task_index, rows[1].last_task_index) == (MOMENT, 0, 2)

    def test_jobs_are_chosen_by_status_and_number(self, filled: Store):
        with filled.session() as session:
            assert [row.id for row in list_jobs(session, status=JobStatus.DONE)] == [1]
            assert [row.id for row in list_jobs(session, limit=2)] == [3, 2]
            assert list_jobs(session, limit=0) == []

    def test_datasets_are_listed_with_the_job_that_they_are_busy_with(self, filled: Store):
        with filled.session() as session:
            rows = list_datasets(session)
            assert [submitted_job_id(session, row.id) for row in rows] == [2, None]

        assert [(row.id, row.name, row.zarr_dir, row.image_count, row.submitted_job_id) for row in rows] == [
            (1, "a", "/d", 2, 2),
            (2, "b", "/d", 2, None),
        ]

    def test_workflows_are_listed_with_the_number_of_their_tasks(self, filled: Store):
        with filled.session() as session:
            rows = list_workflows(session)

        assert [(row.id, row.name, row.task_count) for row in rows] == [(1, "used", 3), (2, "empty", 0)]

    def test_tasks_are_listed_with_what_they_have_from_their_package(self, filled: Store):
        with filled.session() as session:
            rows = list_tasks(session)

        assert [row.source for row in rows] == [
            f"demo-tasks:{v}:{n}" for v in ("1.0", "2.0") for n in ("blur", "measure")
        ]
        last = rows[-1]
        assert (last.pkg_name, last.interpreter, last.version) == ("demo-tasks", "/env2.0/bin/python", "2.0")
        assert (last.type, last.input_types, last.output_types) == ("compound", {"is_3D": True}, {"blurred": True})
        assert (last.command_non_parallel, last.command_parallel) == ("python measure_init.py", "python measure.py")
        assert (last.category, last.modality, last.tags) == ("Registration", None, ["2D"])

    def test_packages_are_listed_with_their_use(self, filled: Store):
        with filled.session() as session:
            rows = list_packages(session)

        assert [(row.version, row.env_dir, row.task_count, row.workflow_count) for row in rows] == [
            ("1.0", "/env1.0", 2, 1),
            ("2.0", "/env2.0", 2, 0),
        ]


class TestCost:
    def test_a_list_of_ten_thousand_is_one_statement_that_leaves_long_columns_alone(self, store: Store):
        many, images = range(10_000), [{"zarr_url": f"/d/{n}", "attributes": {}, "types": {}} for n in range(10)]
        with store.session(write=True) as session:
            session.execute(
                insert(Dataset),
                [{"name": f"d{n}", "zarr_dir": "/d", "image_count": 10, "images": images} for n in many],
            )
            session.add(Workflow(name="w"))
            session.flush()
            job = {"workflow_id": 1, "status": "done", "backend": "local", "first_task_index": 0, "last_task_index": 0}
            session.execute(insert(Job), [job | {"dataset_id": n + 1, "log": "x" * 1000} for n in many])

        with store.session() as session, statements(store) as sent:
            assert len(list_jobs(session)) == len(list_datasets(session)) == 10_000

        assert len(sent) == 2
        self.assert_light(sent)

    @pytest.mark.parametrize("listing", [list_jobs, list_datasets, list_workflows, list_tasks, list_packages])
    def test_every_list_is_one_statement_that_leaves_long_columns_alone(
        self, filled: Store, listing: Callable[[Session], list[object]]
    ):
        with filled.session() as session, statements(filled) as sent:
            assert len(listing(session)) > 1

        assert len(sent) == 1
        self.assert_light(sent)

    def test_finding_a_dataset_does_not_load_its_images(self, filled: Store):
        with filled.session() as session, statements(filled) as sent:
            assert find_dataset(session, 1).image_count == find_dataset(session, "b").image_count == 2

        self.assert_light(sent)

    def assert_light(self, sent: list[str]) -> None:
        for statement in sent:
            selected = statement.partition("FROM")[0]
            assert [name for name in GROWING if f".{name}" in selected] == []


class TestFinding:
    @pytest.mark.parametrize("key", [2, "2", "b", "002"])
    def test_a_dataset_is_found_by_id_or_name(self, filled: Store, key: int | str):
        with filled.session() as session:
            assert find_dataset(session, key).name == "b"

    @pytest.mark.parametrize("key", [1, "1", "used"])
    def test_so_is_a_workflow(self, filled: Store, key: int | str):
        with filled.session() as session:
            assert [place.task_id for place in find_workflow(session, key).task_list] == [1, 2, 1]

    def test_digits_are_a_name_when_no_id(self, filled: Store):
        with filled.session(write=True) as session:
            session.add_all([Dataset(name="20250131", zarr_dir="/d"), Dataset(name="1", zarr_dir="/d")])

        with filled.session() as session:
            assert find_dataset(session, "20250131").name == "20250131"
            assert find_dataset(session, "1").name == "a"
            with pytest.raises(NotFound):
                find_dataset(session, 20250131)

    def test_a_name_that_several_have_is_refused_with_their_ids(self, filled: Store):
        with filled.session(write=True) as session:
            session.add_all([Workflow(name="used") for _ in range(6)])

        with filled.session() as session, pytest.raises(Refused) as refusal:
            find_workflow(session, "used")

        assert str(refusal.value) == "7 workflows are named 'used'; use an id: 1, 3, 4, 5, 6, …"

    def test_what_is_missing_is_named_beside_what_exists(self, filled: Store):
        with filled.session() as session, pytest.raises(NotFound) as refusal:
            find_dataset(session, "c")

        assert str(refusal.value) == (
            "there is no dataset 'c'; there are 2 'b', 1 'a' (`pilothouse dataset list` shows all)"
        )

    def test_in_an_empty_store_one_is_told_how_to_make_one(self, store: Store):
        with (
            store.session() as session,
            pytest.raises(NotFound, match="none exists yet, see `pilothouse workflow --help`"),
        ):
            find_workflow(session, 1)

    @pytest.mark.parametrize("key", ["a\0", "\udcff", "²", "-1", "", "9" * 5000, 10**9, "x" * 100_000, "%", "1; DROP"])
    def test_an_odd_key_is_merely_not_found(self, filled: Store, key: int | str):
        with filled.session() as session, pytest.raises(NotFound) as refusal:
            find_dataset(session, key)

        assert len(str(refusal.value)) < 500
