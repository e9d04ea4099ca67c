"""How a job ends: what is written into the store, on success and on every kind of failure.

Rows O6, O7, E2 and E3 of the behaviour reference. Used by the runner at its end, and by whoever finds that a runner
died before it could do this.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from runner_core.engine import DatasetState
from runner_core.failures import JobExecutionError, OutOfReach, TaskExecutionError, failure_of_error
from runner_core.history import failed_history
from runner_core.images import Filters, image_list
from runner_core.job_folder import read_excerpt
from runner_core.job_record import JobRecord
from runner_core.journal import JobState
from runner_core.model import Failure, FailureKind, JobStatus, Json, Phase
from runner_core.store.models import Dataset, Job, utc_now
from runner_core.store.session import Store

_PAUSES = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 60.0)
"""Seconds between the tries to write the end of a job: a week's work is not given up for a database's bad minute."""


_LOG_LIMIT = 16 * 1024 * 1024  # bytes of workflow.log in the job's row


@dataclass(frozen=True, slots=True)
class Conclusion:
    """How a job ended, and what becomes of its dataset (`None`: it stays as it is)."""

    status: JobStatus
    phase: Phase
    log: str
    failure: Failure | None = None
    history: list[Json] | None = None
    filters: Json | None = None
    images: list[Json] | None = None

    @property
    def headline(self) -> str:
        """How it ended, in one line."""
        return self.failure.headline if self.failure else self.phase.value


def success(record: JobRecord, state: DatasetState) -> Conclusion:
    """Every task succeeded (O6): the whole workflow log is the job's log."""
    return Conclusion(
        JobStatus.DONE,
        Phase.DONE,
        read_excerpt(record.folder.workflow_log, _LOG_LIMIT) or "",
        history=[*record.history, *state.history],
        filters=state.filters.to_json(),
        images=[image.to_json() for image in state.images.values()],
    )


def failure_before_start(error: BaseException) -> Conclusion:
    """Nothing was run (O2, O4): the dataset stays as it is."""
    failure = failure_of_error(error)
    return Conclusion(JobStatus.FAILED, _phase_of(failure), _plain(f"{type(error).__name__}: {error}"), failure)


def failure_during_run(
    record: JobRecord, reached: DatasetState, error: BaseException, *, logger: logging.Logger
) -> Conclusion:
    """Assemble the dataset from the state that the last successful task reached (O7, E2, E3)."""
    done = reached.history
    failed_id = error.workflow_task_id if isinstance(error, TaskExecutionError) else None
    history, known = failed_history(
        before=record.history,
        done=done,
        tasks=[task.dump for task in record.tasks],
        failed_workflow_task_id=failed_id,
    )
    if not known:
        logger.error("the failed task cannot be told: %s of %s tasks are done", len(done), len(record.tasks))
        logger.error("no failed item is added to the history of dataset %s", record.dataset_id)
    current = record.tasks[len(done)] if len(done) < len(record.tasks) else None
    failure = failure_of_error(
        error,
        task_order=current.order if current else None,
        task_name=current.name if current else None,
    )
    return Conclusion(
        JobStatus.FAILED,
        _phase_of(failure),
        _plain(error_text(record.job_id, error)),
        failure,
        history=history,
        filters=reached.filters.to_json() if done else None,
        images=[image.to_json() for image in reached.images.values()] if done else None,
    )


def _phase_of(failure: Failure) -> Phase:
    return Phase.STOPPED if failure.kind is FailureKind.STOPPED else Phase.FAILED


def error_text(job_id: int, error: BaseException) -> str:
    """The job's log after a failure, under the reference's headers (O7)."""
    if isinstance(error, TaskExecutionError):
        head = f"TASK ERROR: Task name: {error.task_name}, position in Workflow: {error.task_order}"
        return f"{head}\nTRACEBACK:\n{error.message}"
    if isinstance(error, JobExecutionError):
        return f"JOB ERROR in Fractal job {job_id}:\nTRACEBACK:\n{error.message}"
    trace = "".join(traceback.format_exception(error))
    return f"UNKNOWN ERROR in Fractal job {job_id}\nTRACEBACK:\n{trace}"


def _plain(text: str) -> str:
    """Text that every database takes: no NUL, no lone surrogates."""
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode("utf-8")


def write_conclusion(
    store: Store,
    conclusion: Conclusion,
    state: JobState,
    *,
    job_id: int,
    dataset_id: int | None,
    sleep: Callable[[float], object] = time.sleep,
) -> None:
    """Write the end of a job in one transaction; a database that does not answer is asked again for some minutes.

    A job that is not `submitted` any more is left as it is.
    """
    outcome = _outcome(conclusion, state)
    for pause in (*_PAUSES, None):
        try:
            _write(store, conclusion, job_id=job_id, dataset_id=dataset_id, outcome=outcome)
        except OutOfReach:
            if pause is None:
                raise
            sleep(pause)
        else:
            return


def _write(store: Store, conclusion: Conclusion, *, job_id: int, dataset_id: int | None, outcome: Json) -> None:
    with store.session(write=True) as session:
        job = session.get(Job, job_id)
        if job is None or job.status != JobStatus.SUBMITTED:
            return
        job.status = conclusion.status.value
        job.log = conclusion.log
        job.end_timestamp = utc_now()
        job.outcome = outcome
        dataset = session.get(Dataset, dataset_id) if dataset_id is not None else None
        if dataset is None:
            return
        if conclusion.history is not None:
            dataset.history = conclusion.history
        if conclusion.filters is not None:
            dataset.filters = conclusion.filters
        if conclusion.images is not None:
            dataset.images = conclusion.images


def _outcome(conclusion: Conclusion, state: JobState) -> Json:
    """What lists and `job show` tell of a job that has ended, without its folder."""
    return {
        "phase": conclusion.phase.value,
        "failure": asdict(conclusion.failure) if conclusion.failure else None,
        "tasks": task_documents(state),
    }


def task_documents(state: JobState) -> list[dict[str, Any]]:
    """The tasks of a job with their unit counts, as `job show` prints them."""
    return [
        {
            "order": task.order,
            "name": task.name,
            "type": task.type,
            "state": task.state.value,
            "units": state.unit_counts(task.order),
            "started": task.started,
            "ended": task.ended,
        }
        for task in sorted(state.tasks.values(), key=lambda task: task.order)
    ]


def state_left_behind(record: JobRecord) -> DatasetState:
    """The state that the last successful task left in the job folder; that of the start if there was none (E3).

    Raises `JobExecutionError` that names the files when they are not what the runner wrote.
    """
    folder = record.folder
    try:
        history = folder.read_state("history") or []
        if not history:
            return record.state
        done = [item["workflowtask"]["id"] for item in history]
        if done != [task.id for task in record.tasks[: len(done)]]:
            raise ValueError("the history is not that of the job's tasks")
        filters = folder.read_state("filters")
        images: Any = folder.read_state("images")
        return DatasetState(image_list(images), Filters.from_json(filters), tuple(history))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, JobExecutionError) as error:
        raise JobExecutionError(
            f"history.json, filters.json or images.json in {folder.path} were changed by somebody ({error}); "
            "the dataset stays as it was",
            kind=FailureKind.INTERNAL,
        ) from None
