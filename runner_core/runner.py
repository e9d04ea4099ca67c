"""The detached runner process: `python -m runner_core.runner JOB_ID`.

It leads a session of its own and inherits the job's lease, so closing the terminal, a dropped connection and SIGHUP
change nothing for it. SIGTERM is an operator's wish to stop.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

from runner_core.conclusion import failure_before_start, write_conclusion
from runner_core.failures import NotFound, PilothouseError
from runner_core.job_folder import JobFolder
from runner_core.journal import JobState
from runner_core.lease import Lease, lease_path
from runner_core.settings import Settings, UserSettings, read_settings
from runner_core.store.models import Job
from runner_core.store.session import open_store
from runner_core.submission import submit_workflow


async def run_job(settings: Settings, job_id: int) -> None:
    """Run one job of the store as it was launched; raises `NotFound` if there is no such job."""
    store = open_store(settings.store)
    with store.session() as session:
        job = session.get(Job, job_id)
    if job is None or job.workflow_id is None or job.dataset_id is None or job.working_dir is None:
        raise NotFound(f"job {job_id} cannot be run: it, its workflow or its dataset does not exist")
    folder = JobFolder(Path(job.working_dir))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, folder.request_stop)
    if signal.SIGTERM in signal.sigpending():  # it came while this process started
        folder.request_stop()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP, signal.SIGTERM})
    try:
        user = settings.profile_named(job.profile).user if job.profile else UserSettings()
    except PilothouseError as error:
        lease = Lease.inherited_or_acquired(lease_path(settings.runners_dir, job_id))
        conclusion = failure_before_start(error)
        write_conclusion(store, conclusion, JobState(), job_id=job_id, dataset_id=job.dataset_id)
        lease.release()
        return
    os.environ["PILOTHOUSE_RUNNER_BACKEND"] = job.backend
    await submit_workflow(
        workflow_id=job.workflow_id,
        dataset_id=job.dataset_id,
        job_id=job_id,
        user_settings=user,
        worker_init=job.worker_init,
        user_cache_dir=user.cache_dir,
    )


def main(words: list[str]) -> None:
    """Run the job whose id is the first word.

    The launcher starts this process with SIGHUP and SIGTERM held back; they are let through once they can be heeded.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s; %(levelname)s; %(name)s; %(message)s")
    asyncio.run(run_job(read_settings(), int(words[0])))


if __name__ == "__main__":
    main(sys.argv[1:])
