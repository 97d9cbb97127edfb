"""An import uses more cores. The scheduler is real, the time is virtual (`tests.bench.replay`).

`tests/data/job_times.json` has the seconds of the jobs of 120 screenshots of a desktop, written by
`python -m tests.bench.cores --save`. Job names that are not in it raise KeyError: record it anew.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from tests.bench.cores import believed, environment
from tests.bench.replay import Recording, Times, Unlike, record, replay
from tests.support.frames import png, screens
from tests.support.paths import CHECKOUT

# The least speed-up by the number of cores, a little below what is reached.
FLOORS = {2: 1.9, 4: 3.7, 8: 6.7, 16: 10.5}


@pytest.fixture(scope="module")
def times() -> Times:
    found: Times = json.loads((CHECKOUT / "tests/data/job_times.json").read_text())
    return found


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory, times: Times) -> Recording:
    folder = tmp_path_factory.mktemp("cores") / "desk"
    folder.mkdir()
    for number, frame in enumerate(screens(120, height=48, width=64)):
        (folder / f"{number:03}.png").write_bytes(png(frame))
    return record(folder)


def test_a_recording_has_each_job_of_each_file(recording: Recording) -> None:
    counts = Counter(name for name, _ in recording.jobs)
    assert (counts["look"], counts["encode"]) == (120, 120)
    assert set(counts) <= {"look", "encode", "find_moves", "make_dictionary"}
    assert all(job.seconds > 0 for jobs in recording.jobs.values() for job in jobs)
    assert recording.owner_s > 0


def test_one_core_takes_as_long_as_all_jobs_together(recording: Recording, times: Times) -> None:
    timed = recording.with_times(times)
    total = sum(job.seconds for jobs in timed.jobs.values() for job in jobs)
    assert replay(timed, 1) == pytest.approx(total, rel=0.05)


def test_more_cores_are_faster(recording: Recording, times: Times) -> None:
    timed = recording.with_times(times)
    alone = replay(timed, 1)
    found = {cores: alone / replay(timed, cores) for cores in FLOORS}
    assert all(found[cores] >= floor for cores, floor in FLOORS.items()), found


@pytest.mark.parametrize(("cores", "share"), [(2, 0.7), (8, 0.5), (16, 0.4)])
def test_a_worker_looks_at_files_that_follow_each_other(
    recording: Recording, times: Times, cores: int, share: float
) -> None:
    """So a look takes hardly more time if there are more workers."""
    looks: list[tuple[int, Path]] = []
    replay(recording.with_times(times), cores, looks)
    latest: dict[int, int] = {}
    close = 0
    for worker, path in looks:
        number = int(path.stem)
        close += latest.get(worker) == number - 1
        latest[worker] = number
    assert len(looks) == 120
    assert close / len(looks) >= share, close


def test_the_thread_of_the_owner_bounds_the_rate(recording: Recording, times: Times) -> None:
    jobs = sum(map(len, recording.jobs.values()))
    assert replay(recording.with_times(times, owner_s=0.1), 8) >= 0.1 * jobs


def test_a_replay_takes_the_same_time_again(recording: Recording, times: Times) -> None:
    timed = recording.with_times(times, owner_s=0.002)
    assert len({replay(timed, 8) for _ in range(3)}) == 1


def test_a_job_that_was_not_recorded_is_found_out(recording: Recording) -> None:
    jobs = dict(recording.jobs)
    del jobs[next(key for key in jobs if key[0] == "encode")]
    with pytest.raises(Unlike, match="encode number 1 of"):
        replay(replace(recording, jobs=jobs), 4)


_ASKS = """
import trio
from fsmount.work.workers import Workers
async def main():
    question = "len(__import__('os').sched_getaffinity(0))"
    async with Workers(1) as workers:
        print(eval(question), await workers.run(eval, question))
trio.run(main)
"""


def test_a_program_and_its_workers_believe_in_cores(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _ASKS]
    done = subprocess.run(command, env=environment(13, tmp_path), capture_output=True, check=True)
    assert done.stdout.split() == [b"13", b"13"]


def test_an_import_that_believes_in_cores_has_costs(tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(png(screens(1)[0]))
    assert min(believed(tmp_path, 3)) > 0
