"""Following a job while the store is out of reach for some time."""

from __future__ import annotations

import pytest

from runner_core import OutOfReach
from tests.cli.command_line import Stage
from tui.cli.invocation import Invocation
from tui.cli.progress import follow_job

NOBODY_LISTENS = "postgresql://nobody@127.0.0.1:1/store"


def test_a_store_that_answers_again_is_read_on_after_one_note(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    job = stage.run({"task": "Each"})
    pauses: list[float] = []
    invocation = Invocation()

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            monkeypatch.delenv("PILOTHOUSE_DATABASE_URL")
            del invocation.settings  # they are read anew

    monkeypatch.setenv("PILOTHOUSE_DATABASE_URL", NOBODY_LISTENS)
    capfd.readouterr()
    followed = follow_job(invocation, job["id"], sleep=sleep)

    noted = capfd.readouterr().err.splitlines()
    assert followed == job
    assert pauses == [1, 2, 4]
    assert [line.partition(": the store")[0] for line in noted if "warning" in line] == [
        "warning: job 1 cannot be seen, trying again"
    ]


def test_after_some_minutes_out_of_reach_it_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PILOTHOUSE_DATABASE_URL", NOBODY_LISTENS)
    pauses: list[float] = []

    with pytest.raises(OutOfReach):
        follow_job(Invocation(), 1, sleep=pauses.append)

    assert pauses == sorted(pauses)
    assert 120 < sum(pauses) < 600
