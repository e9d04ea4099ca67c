"""The engine: a workflow over a dataset, task by task.

For each task: filter the images, build the units, hand them to the backend, merge what they say, update the image list,
filters and history, and write the new state into the job folder. What to do is decided by the pure rooms (`images`,
`task_io`, `history`, `failures`); this room keeps the order, the journal and the clock.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from runner_core.backends.base import Backend, Batch, BatchNews
from runner_core.commands import command_words
from runner_core.failures import (
    JobExecutionError,
    TaskExecutionError,
    UnitEvidence,
    failure_of_units,
    process_report,
    quoted,
)
from runner_core.history import done_item
from runner_core.images import (
    Filters,
    Image,
    ImageList,
    apply_output,
    filters_after_task,
    require_types,
    select_images,
)
from runner_core.job_folder import BatchFiles, JobFolder, UnitFiles, read_excerpt
from runner_core.journal import Journal, to_ranges
from runner_core.model import Failure, FailureKind, Json, TaskState, TaskType, Unit, UnitResult
from runner_core.task_io import (
    TaskOutput,
    compound_arguments,
    merged_outputs,
    non_parallel_arguments,
    parallel_arguments,
    parse_init_output,
    parse_task_output,
)

_LOG_LIMIT = 100_000  # bytes of a failed unit's log in the job's error text
_TAIL_LIMIT = 16_384  # bytes at the end of a log in which the cause is looked for


@dataclass(frozen=True, slots=True)
class WorkflowTask:
    """One task of the job's range, as the engine needs it; `dump` is the full dump that the history keeps."""

    id: int
    order: int
    name: str
    type: str
    command_non_parallel: str | None
    command_parallel: str | None
    args_non_parallel: Json
    args_parallel: Json
    meta_non_parallel: Json
    meta_parallel: Json
    input_filters: Filters
    input_types: Mapping[str, bool]
    output_types: Mapping[str, bool]
    dump: Json

    @classmethod
    def from_dump(cls, dump: Json) -> WorkflowTask:
        """Read the store's dump of a workflow task; its meta wins over the manifest's."""
        task = dump["task"]
        return cls(
            id=dump["id"],
            order=dump["order"],
            name=task["name"],
            type=task["type"],
            command_non_parallel=task["command_non_parallel"],
            command_parallel=task["command_parallel"],
            args_non_parallel=dump["args_non_parallel"] or {},
            args_parallel=dump["args_parallel"] or {},
            meta_non_parallel={**(task["meta_non_parallel"] or {}), **(dump["meta_non_parallel"] or {})},
            meta_parallel={**(task["meta_parallel"] or {}), **(dump["meta_parallel"] or {})},
            input_filters=Filters.from_json(dump["input_filters"]),
            input_types=task["input_types"] or {},
            output_types=task["output_types"] or {},
            dump=dump,
        )


@dataclass(frozen=True, slots=True)
class DatasetState:
    """The part of a dataset that tasks change; `history` holds the items of this job alone (T1)."""

    images: ImageList
    filters: Filters
    history: tuple[Json, ...] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """What all tasks of one job share."""

    job_id: int
    zarr_dir: str
    folder: JobFolder
    journal: Journal
    backend: Backend
    logger: logging.Logger
    max_units: int
    stop_requested: Callable[[], bool]


async def run_tasks(run: Run, tasks: Sequence[WorkflowTask], start: DatasetState) -> AsyncGenerator[DatasetState, None]:
    """Run the tasks in order, and yield the state after each; the job folder holds the same by then (T13).

    Raises `TaskExecutionError` or `JobExecutionError` for the first task that fails.
    """
    state = start
    for task in tasks:
        run.logger.info("SUBMIT %s-th task (name=%s)", task.order, quoted(task.name))
        run.journal.append({"event": "task_started", "order": task.order})
        try:
            if run.stop_requested():
                run.journal.append({"event": "stop_requested"})
                raise stopped_by_operator(task)
            state = await _run_task(run, task, state)
        except BaseException:
            run.journal.append({"event": "task_ended", "order": task.order, "state": TaskState.FAILED})
            raise
        run.folder.write_state(
            history=list(state.history),
            filters=state.filters.to_json(),
            images=[image.to_json() for image in state.images.values()],
        )
        run.journal.append({"event": "task_ended", "order": task.order, "state": TaskState.DONE})
        run.logger.info("END    %s-th task (name=%s)", task.order, quoted(task.name))
        yield state


async def _run_task(run: Run, task: WorkflowTask, state: DatasetState) -> DatasetState:
    task_type = TaskType(task.type)
    inputs: list[Image] = []
    if task_type.takes_images:
        inputs = select_images(state.images, state.filters.overlaid(task.input_filters))
        require_types(inputs, task.input_types)
        if not inputs:
            run.logger.warning("the filters select no image for %s", quoted(task.name))
    output = await _OUTPUT_OF[task_type](run, task, inputs)
    images = apply_output(state.images, output, inputs=inputs, output_types=task.output_types, zarr_dir=run.zarr_dir)
    filters = filters_after_task(state.filters, output_filters=output.all_filters, output_types=task.output_types)
    return DatasetState(images, filters, (*state.history, done_item(task.dump)))


# ----------------------------------------------------------------------------------------------------------------------
# The output of a task, by its type


async def _non_parallel(run: Run, task: WorkflowTask, inputs: Sequence[Image]) -> TaskOutput:
    return parse_task_output(await _run_non_parallel_unit(run, task, inputs))


async def _parallel(run: Run, task: WorkflowTask, inputs: Sequence[Image]) -> TaskOutput:
    return await _run_parallel_units(run, task, parallel_arguments(inputs, arguments=task.args_parallel))


async def _compound(run: Run, task: WorkflowTask, inputs: Sequence[Image]) -> TaskOutput:
    plan = parse_init_output(await _run_non_parallel_unit(run, task, inputs))
    return await _run_parallel_units(run, task, compound_arguments(plan, arguments=task.args_parallel))


_OUTPUT_OF = {
    TaskType.NON_PARALLEL: _non_parallel,
    TaskType.CONVERTER_NON_PARALLEL: _non_parallel,
    TaskType.PARALLEL: _parallel,
    TaskType.COMPOUND: _compound,
    TaskType.CONVERTER_COMPOUND: _compound,
}


async def _run_non_parallel_unit(run: Run, task: WorkflowTask, inputs: Sequence[Image]) -> str | None:
    arguments = non_parallel_arguments(
        inputs,
        zarr_dir=run.zarr_dir,
        takes_images=TaskType(task.type).takes_images,
        arguments=task.args_non_parallel,
    )
    unit = Unit(0, UnitFiles.non_parallel(task.order).name, arguments)
    part = _Part(run, task, task.command_non_parallel, task.meta_non_parallel, [unit])
    return (await part.run([(BatchFiles.non_parallel(task.order), (unit,))]))[0].output


async def _run_parallel_units(run: Run, task: WorkflowTask, arguments: Sequence[Json]) -> TaskOutput:
    if len(arguments) > run.max_units:
        raise JobExecutionError(
            f"{task.name} would run {len(arguments):,} units; at most {run.max_units:,} are allowed",
            kind=FailureKind.SETUP,
            hint="raise PILOTHOUSE_MAX_UNITS_PER_TASK, or narrow the filters",
        )
    if not arguments:
        return TaskOutput()
    units = [Unit(i, UnitFiles.parallel(task.order, i).name, item) for i, item in enumerate(arguments)]
    part = _Part(run, task, task.command_parallel, task.meta_parallel, units)
    split = run.backend.split(units, meta=task.meta_parallel)
    batches = [(BatchFiles.parallel(task.order, number), batch) for number, batch in enumerate(split)]
    results = await part.run(batches)
    return merged_outputs(parse_task_output(result.output) for result in results)


# ----------------------------------------------------------------------------------------------------------------------
# One part of a task: its units, from submission to results


@dataclass(slots=True)
class _Part:
    """The units that one command of a task runs, and what is known of them so far."""

    job: Run
    task: WorkflowTask
    command: str | None
    meta: Json
    units: Sequence[Unit]
    results: dict[int, UnitResult] = field(default_factory=dict)
    batches: dict[str, Batch] = field(default_factory=dict)
    lost: str | None = None
    stopping: bool = False

    @property
    def folder(self) -> Path:
        return self.job.folder.task_folder(self.task.order, self.task.name)

    async def run(self, batches: Sequence[tuple[BatchFiles, tuple[Unit, ...]]]) -> list[UnitResult]:
        """Run all units; returns their results in order, or raises for the first that failed."""
        words = self._command_words()
        self._record({"event": "units_planned", "order": self.task.order, "units": len(self.units)})
        for files, units in batches:
            await self._submit(files, units, words)
        while self.batches:
            self._take_in(await self.job.backend.poll(list(self.batches)))
            if not self.stopping and self.job.stop_requested():
                self.stopping = True
                self._record({"event": "stop_requested"})
                self.job.logger.info("stop requested: ending the units in flight")
                await self.job.backend.cancel(list(self.batches))
        return self._checked_results()

    async def _submit(self, files: BatchFiles, units: tuple[Unit, ...], words: tuple[str, ...]) -> None:
        key = f"job-{self.job.job_id}-{files.name}"
        batch = Batch(key, 1, self.folder, files, words, units, self.meta)
        ranges = to_ranges(unit.index for unit in units)
        self._record({"event": "submitting", "key": key, "order": self.task.order, "units": ranges})
        handle = await self.job.backend.submit(batch)
        self._record({"event": "submitted", "key": key, "handle": handle})
        self.batches[key] = batch

    def _record(self, *events: Json) -> None:
        self.job.journal.append(*events)

    def _take_in(self, news: Mapping[str, BatchNews]) -> None:
        events: list[Json] = []
        for key, item in news.items():
            for note in item.notes:
                self.job.logger.warning("%s: %s", quoted(self.task.name), quoted(note, 2000))
            self.results.update((result.index, result) for result in item.results)
            if item.started or item.results:
                events.append(units_event(key, self.task.order, item))
            if item.ended is not None:
                del self.batches[key]
                events.append({"event": "batch_ended", "key": key, "order": self.task.order, "reason": item.ended})
                self.lost = self.lost or item.problem
        if events:
            self._record(*events)

    def _command_words(self) -> tuple[str, ...]:
        try:
            return command_words(self.command or "")
        except ValueError as error:
            raise self._task_error(str(error)) from None

    def _task_error(self, message: str) -> TaskExecutionError:
        hint = "collect the task package again"
        failure = Failure(FailureKind.SETUP, message, message, hint, self.task.order, self.task.name)
        return self._error(message, failure)

    def _error(self, message: str, failure: Failure) -> TaskExecutionError:
        return TaskExecutionError(
            message,
            workflow_task_id=self.task.id,
            task_order=self.task.order,
            task_name=self.task.name,
            failure=failure,
        )

    # -- the end: all results, or an error

    def _checked_results(self) -> list[UnitResult]:
        results = [self.results.get(unit.index) for unit in self.units]
        good = [result for result in results if _succeeded(result)]
        if self.stopping and len(good) < len(self.units):
            raise stopped_by_operator(self.task)
        if len(good) == len(self.units):
            return [result for result in results if result is not None]
        raise self._failure(results)

    def _failure(self, results: Sequence[UnitResult | None]) -> JobExecutionError | TaskExecutionError:
        failed = [(unit, result) for unit, result in zip(self.units, results, strict=True) if not _succeeded(result)]
        evidence = [self._evidence(unit, result) for unit, result in failed]
        failure = failure_of_units(
            evidence, total=len(self.units), task_order=self.task.order, task_name=self.task.name
        )
        unit, result = failed[0]
        log = read_excerpt(self.folder / UnitFiles(unit.name).log, _LOG_LIMIT)
        if result is not None and result.returncode is not None and result.returncode > 0:
            return self._error(log or f"{failure.headline}\n{failure.detail}", failure)
        info = f"Task failed with returncode={result.returncode}" if result else evidence[0].problem
        report = process_report(
            command=self.command or "", files={"STDOUT AND STDERR": log}, info=info or failure.headline
        )
        return JobExecutionError(report, kind=failure.kind, failure=failure)

    def _evidence(self, unit: Unit, result: UnitResult | None) -> UnitEvidence:
        if result is None:
            return UnitEvidence(unit.index, None, self.lost or "its worker ended before it was run", "")
        tail = read_excerpt(self.folder / UnitFiles(unit.name).log, _TAIL_LIMIT) or ""
        return UnitEvidence(unit.index, result.returncode, result.problem, tail)


def _succeeded(result: UnitResult | None) -> bool:
    return result is not None and result.returncode == 0 and result.problem is None


def units_event(key: str, order: int, news: BatchNews) -> Json:
    """What the journal notes of news of a batch."""
    done = [result.index for result in news.results if _succeeded(result)]
    failed = [result.index for result in news.results if not _succeeded(result)]
    return {
        "event": "units",
        "key": key,
        "order": order,
        "started": to_ranges(news.started),
        "done": to_ranges(done),
        "failed": to_ranges(failed),
    }


def stopped_by_operator(task: WorkflowTask) -> JobExecutionError:
    """The error of a job that an operator stopped (X1)."""
    failure = Failure(
        FailureKind.STOPPED,
        "stopped by operator",
        f"The job was stopped by operator during task {task.order} ({task.name}).",
        "what the tasks before it made is in the dataset; run the job again from this task on",
        task.order,
        task.name,
    )
    return JobExecutionError("Job stopped by operator.", kind=FailureKind.STOPPED, failure=failure)
