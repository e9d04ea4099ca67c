"""What the tables hold, refuse and give back, the same on every database."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from threading import Barrier

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import IntegrityError, StatementError

from runner_core.failures import BadInput
from runner_core.store.column_types import JsonText
from runner_core.store.errors import dataset_is_busy
from runner_core.store.models import Dataset, Job, Task, TaskPackage, Workflow, WorkflowTask
from runner_core.store.session import Store


def new_job(dataset_id: int | None, **fields) -> Job:
    return Job(dataset_id=dataset_id, backend="local", first_task_index=0, last_task_index=0, **fields)


def new_package() -> TaskPackage:
    package = TaskPackage(
        pkg_name="demo-tasks", version="1.0", origin="pypi", requested="demo-tasks==1.0", interpreter="/env/bin/python"
    )
    package.tasks = [
        Task(name=name, type="parallel", source=f"demo-tasks:1.0:{name}", version="1.0") for name in ("blur", "measure")
    ]
    return package


def add(store: Store, thing: Dataset | Job | Workflow | TaskPackage) -> int:
    with store.session(write=True) as session:
        session.add(thing)
        session.flush()
        return thing.id


def add_workflow(store: Store) -> int:
    """The id of a workflow that uses both tasks of a package."""
    package = new_package()
    add(store, package)
    workflow = Workflow(name="demo")
    workflow.task_list = [WorkflowTask(order=place, task_id=task.id) for place, task in enumerate(package.tasks)]
    return add(store, workflow)


def count(store: Store, kind: type) -> int:
    with store.session() as session:
        return session.scalar(select(func.count()).select_from(kind)) or 0


class TestOneSubmittedJobPerDataset:
    def test_s1_a_second_submitted_job_on_a_dataset_is_refused_by_the_database(self, store: Store):
        dataset_id = add(store, Dataset(name="d", zarr_dir="/d"))
        add(store, new_job(dataset_id))

        with pytest.raises(IntegrityError) as refusal:
            add(store, new_job(dataset_id))

        assert dataset_is_busy(refusal.value)

    def test_s1_jobs_that_have_ended_do_not_count(self, store: Store):
        dataset_id = add(store, Dataset(name="d", zarr_dir="/d"))
        for status in ("done", "failed", "done", "failed", "submitted"):
            add(store, new_job(dataset_id, status=status))

        with pytest.raises(IntegrityError):
            add(store, new_job(dataset_id))

    def test_s1_a_job_that_ends_frees_its_dataset_and_cannot_come_back(self, store: Store):
        dataset_id = add(store, Dataset(name="d", zarr_dir="/d"))
        first_id = add(store, new_job(dataset_id))
        with store.session(write=True) as session:
            session.get_one(Job, first_id).status = "done"
        add(store, new_job(dataset_id))

        with pytest.raises(IntegrityError) as refusal, store.session(write=True) as session:
            session.get_one(Job, first_id).status = "submitted"

        assert dataset_is_busy(refusal.value)

    def test_s5_of_many_launches_at_the_same_moment_one_wins(self, store: Store):
        dataset_id = add(store, Dataset(name="d", zarr_dir="/d"))
        start = Barrier(4)

        def launch(_: int) -> str:
            start.wait()
            try:
                add(store, new_job(dataset_id))
            except IntegrityError as error:
                return "busy" if dataset_is_busy(error) else str(error)
            return "launched"

        with ThreadPoolExecutor(4) as pool:
            assert sorted(pool.map(launch, range(4))) == ["busy", "busy", "busy", "launched"]
        assert count(store, Job) == 1

    def test_jobs_without_a_dataset_do_not_collide(self, store: Store):
        add(store, new_job(None))
        add(store, new_job(None))

        assert count(store, Job) == 2

    def test_another_broken_constraint_is_not_taken_for_a_busy_dataset(self, store: Store):
        with pytest.raises(IntegrityError) as refusal:
            add(store, new_job(12345))

        assert not dataset_is_busy(refusal.value)

    def test_s3_there_are_three_statuses(self, store: Store):
        with pytest.raises(IntegrityError):
            add(store, new_job(None, status="running"))


class TestDeletion:
    def test_a_task_that_a_workflow_uses_stays(self, store: Store):
        add_workflow(store)

        with pytest.raises(IntegrityError), store.session(write=True) as session:
            session.delete(session.scalars(select(Task).where(Task.name == "blur")).one())

        assert count(store, Task) == 2

    def test_so_does_its_package_with_all_tasks(self, store: Store):
        add_workflow(store)

        with pytest.raises(IntegrityError), store.session(write=True) as session:
            session.delete(session.scalars(select(TaskPackage)).one())

        assert (count(store, TaskPackage), count(store, Task)) == (1, 2)

    def test_a_package_that_is_not_used_goes_with_its_tasks(self, store: Store):
        package_id = add(store, new_package())

        with store.session(write=True) as session:
            session.delete(session.get_one(TaskPackage, package_id))

        assert (count(store, TaskPackage), count(store, Task)) == (0, 0)

    def test_a_workflow_goes_with_its_places_and_leaves_tasks_and_jobs(self, store: Store):
        workflow_id = add_workflow(store)
        job_id = add(store, new_job(None, workflow_id=workflow_id, status="done", workflow_dump={"name": "demo"}))

        with store.session(write=True) as session:
            session.delete(session.get_one(Workflow, workflow_id))

        assert (count(store, WorkflowTask), count(store, Task)) == (0, 2)
        with store.session() as session:
            job = session.get_one(Job, job_id)
            assert (job.workflow_id, job.workflow_dump) == (None, {"name": "demo"})

    def test_a_dataset_leaves_its_jobs(self, store: Store):
        dataset_id = add(store, Dataset(name="d", zarr_dir="/d"))
        ended, submitted = add(store, new_job(dataset_id, status="failed")), add(store, new_job(dataset_id))

        with store.session(write=True) as session:
            session.delete(session.get_one(Dataset, dataset_id))

        with store.session() as session:
            jobs = session.scalars(select(Job).order_by(Job.id)).all()
            assert [(job.id, job.dataset_id, job.submitted_dataset_id) for job in jobs] == [
                (ended, None, None),
                (submitted, None, None),
            ]

    def test_an_id_is_never_given_twice(self, store: Store):
        first = add(store, Dataset(name="d", zarr_dir="/d"))
        with store.session(write=True) as session:
            session.delete(session.get_one(Dataset, first))

        assert add(store, Dataset(name="d", zarr_dir="/d")) > first


class TestTimes:
    def test_times_come_back_in_utc(self, store: Store):
        noon_in_tokyo = datetime(2025, 3, 1, 12, 0, 0, 123456, tzinfo=timezone(timedelta(hours=9)))
        job_id = add(store, new_job(None, end_timestamp=noon_in_tokyo))

        with store.session() as session:
            end = session.get_one(Job, job_id).end_timestamp

        assert end == noon_in_tokyo
        assert end.tzinfo is UTC
        assert end.hour == 3

    def test_times_order_as_moments_whatever_their_zone(self, store: Store):
        early = datetime(2025, 3, 1, 23, tzinfo=timezone(timedelta(hours=14)))
        late = datetime(2025, 3, 1, 10, tzinfo=UTC)
        add(store, new_job(None, end_timestamp=late))
        add(store, new_job(None, end_timestamp=early))

        with store.session() as session:
            assert session.scalars(select(Job.end_timestamp).order_by(Job.end_timestamp)).all() == [early, late]

    def test_a_new_job_starts_now(self, store: Store):
        before = datetime.now(UTC)
        job_id = add(store, new_job(None))

        with store.session() as session:
            assert before <= session.get_one(Job, job_id).start_timestamp <= datetime.now(UTC)

    def test_a_time_without_a_zone_is_refused(self, store: Store):
        with pytest.raises(StatementError, match="aware times only"):
            add(store, new_job(None, end_timestamp=datetime(2025, 3, 1)))  # noqa: DTZ001


AWKWARD = {
    "unicode": "µm, 図, 🔬, e\u0301, \u202e",
    "control characters": "\0\x01\x1b[2J\x7f\r\n\u2028",
    "half a surrogate pair": "\ud800 \udcff",
    "numbers": [0, -1, 2**63, 10**40, 1e300, 5e-324, -0.0, 0.1],
    "infinities": [math.inf, -math.inf],
    "constants": [True, False, None],
    "empty": ["", [], {}, {"": ""}],
}


class TestJson:
    @pytest.mark.parametrize("name", AWKWARD)
    def test_awkward_values_come_back_as_they_were(self, store: Store, name: str):
        dataset_id = add(store, Dataset(name="d", zarr_dir="/d", images=[{name: AWKWARD[name]}]))

        with store.session() as session:
            (image,) = session.get_one(Dataset, dataset_id).images

        assert repr(image) == repr({name: AWKWARD[name]})

    def test_a_value_that_is_not_a_number_comes_back(self, store: Store):
        dataset_id = add(store, Dataset(name="d", zarr_dir="/d", images=[{"a": math.nan}]))

        with store.session() as session:
            assert math.isnan(session.get_one(Dataset, dataset_id).images[0]["a"])

    def test_five_megabytes_come_back(self, store: Store):
        images = [{"zarr_url": f"/d/{i:07}", "attributes": {"well": "é" * 100}, "types": {}} for i in range(20_000)]
        dataset_id = add(store, Dataset(name="d", zarr_dir="/d", images=images))

        with store.session() as session:
            assert session.get_one(Dataset, dataset_id).images == images

    def test_a_nested_value_comes_back_however_deep(self, store: Store):
        value: list = []
        for _ in range(400):
            value = [value]
        dataset_id = add(store, Dataset(name="d", zarr_dir="/d", history=[{"a": value}]))

        with store.session() as session:
            assert session.get_one(Dataset, dataset_id).history == [{"a": value}]

    def test_what_equals_the_old_value_only_in_python_is_written(self, store: Store):
        dataset_id = add(store, Dataset(name="d", zarr_dir="/d", filters={"a": 1}))

        with store.session(write=True) as session:
            session.get_one(Dataset, dataset_id).filters = {"a": True}

        with store.session() as session:
            assert session.get_one(Dataset, dataset_id).filters["a"] is True

    def test_nothing_is_null(self, store: Store):
        job_id = add(store, new_job(None, outcome=None))

        with store.session() as session:
            assert session.scalars(select(Job.id).where(Job.outcome.is_(None))).all() == [job_id]

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters()), inner),
        )
    )
    def test_whatever_json_can_say_survives_as_text(self, value):
        dialect = sqlite.dialect()

        text = JsonText().process_bind_param(value, dialect)

        assert repr(JsonText().process_result_value(text, dialect)) == repr(value)


class TestText:
    def test_a_log_is_kept_but_for_what_no_database_holds(self, store: Store):
        job_id = add(store, new_job(None, log="50 %\r\x1b[31mred\0\ud800 é 🔬\n"))

        with store.session() as session:
            assert session.get_one(Job, job_id).log == "50 %\r\x1b[31mred\ufffd\ufffd é 🔬\n"

    def test_other_text_comes_back_exactly(self, store: Store):
        name = "\ufeffa\tb\x1b'\"; DROP TABLE job; -- 🔬" + "x" * 5000
        dataset_id = add(store, Dataset(name=name, zarr_dir="/d"))

        with store.session() as session:
            assert session.get_one(Dataset, dataset_id).name == name

    @pytest.mark.parametrize("name", ["a\0b", "a\ud800b"])
    def test_or_is_refused(self, store: Store, name: str):
        with pytest.raises(BadInput, match="cannot keep"):
            add(store, Dataset(name=name, zarr_dir="/d"))


def test_the_image_count_follows_the_images(store: Store):
    dataset_id = add(store, Dataset(name="d", zarr_dir="/d", images=[{}, {}]))
    with store.session(write=True) as session:
        session.get_one(Dataset, dataset_id).images = [{}, {}, {}]

    with store.session() as session:
        assert session.get_one(Dataset, dataset_id).image_count == 3
