"""Chains of jobs: what is rendered, what is refused, and what a second call does."""

import errno
import json
import re
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_slurm import FakeSlurm, fake_slurm

from geohsal.config import load_config
from geohsal.errors import BudgetError, DataError, GeohsalError, RequestError, RunError
from geohsal.io.atomic import read_json, write_json
from geohsal.io.run import Run
from geohsal.io.run_tables import write_config
from geohsal.workflows import slurm
from geohsal.workflows.landscape import write_landscape
from geohsal.workflows.status import status, status_lines
from geohsal.workflows.submit import SubmitSummary, cancel, submit
from geohsal.workflows.submit_record import read_jobs

FLOW = ("tile", "train", "query", "select")
CLUSTER = """
cluster: {sbatch: {partition: p, time: "01:00:00"}}
stages:
  tile: {array: 4, cpus: 2}
  train: {nodes: 2, gpus_per_node: 4, time: "24:00:00", sbatch: {partition: q}}
  query: {array: 3}
  select: {mem: 8G, budget: 7regions}
  export: {cpus: 3}
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    return fake_slurm(tmp_path / "bin", monkeypatch)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_landscape(tmp_path_factory.mktemp("scenes"), shape=(96, 96))


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    path = tmp_path / "cluster.yaml"
    path.write_text(CLUSTER, "utf-8")
    return path


@pytest.fixture
def tiled(tmp_path: Path) -> Run:
    """What a run shows from outside once it is tiled and its round 0 trained."""
    run = Run(path=tmp_path / "tiled run")
    run.path.mkdir()
    run.tiles.touch()
    write_config(run.config, load_config("cpu-small"), version="0")
    write_json(run.round(0).model_json, {})
    return run


def dry(run: Path, *stages: str, **options: Any) -> SubmitSummary:
    return submit(run, stages, dry_run=True, **options)


def commands(summary: SubmitSummary) -> list[str]:
    """What srun starts in each job."""
    lines = [line for job in summary.jobs for line in job.text.splitlines()]
    started = [line for line in lines if line.startswith("srun ")]
    return [
        line.removeprefix("srun --export=ALL --kill-on-bad-exit=1 geohsal ") for line in started
    ]


def test_the_flow_of_a_new_run(manifest: Path, cluster: Path, tmp_path: Path) -> None:
    summary = dry(tmp_path / "a run", *FLOW, manifest=manifest, cluster=cluster)
    tile = f"tile {manifest} -o '{tmp_path}/a run' -c default --workers 2"
    run = f"'{tmp_path}/a run'"
    assert commands(summary) == [
        f'{tile} --shard "$SLURM_ARRAY_TASK_ID/4" &',
        f"{tile} &",
        f"train {run} --device cuda &",
        f'query {run} --shard "$SLURM_ARRAY_TASK_ID/3" &',
        f"select {run} --budget 7regions &",
    ]
    assert summary.notes == ("settings: preset default (GPUs are asked for); choose with -c",)
    assert [job.tasks for job in summary.jobs] == [4, 1, 1, 3, 1]
    tile_text, _, train_text, _, select_text = (job.text for job in summary.jobs)
    assert "#SBATCH --partition=p\n#SBATCH --time=01:00:00\n" in tile_text
    assert "#SBATCH --partition=q\n#SBATCH --time=24:00:00\n" in train_text
    assert "#SBATCH --nodes=2\n#SBATCH --ntasks-per-node=4\n" in train_text
    assert "#SBATCH --mem=8G\n" in select_text
    assert not (tmp_path / "a run").exists()


@pytest.mark.parametrize(
    ("asked", "judging"),
    [
        ("{cpus: 3}", " --workers 3"),
        ("{cpus: 3, gpus_per_node: 1}", " --device cuda"),
        ("{mem: 8G}", ""),
    ],
)
def test_cores_are_processes_but_where_a_gpu_judges(
    tiled: Run, tmp_path: Path, asked: str, judging: str
) -> None:
    cluster, stages = tmp_path / "cluster.yaml", ("query", "select", "predict")
    cluster.write_text(f"stages: {{{', '.join(f'{name}: {asked}' for name in stages)}}}", "utf-8")
    run, cores = f"'{tiled.path}'", " --workers 3" if "cpus" in asked else ""
    write_json(tiled.round(0).model_json, {})
    found = commands(dry(tiled.path, "query", "select", cluster=cluster))
    assert found == [
        f'query {run}{judging} --shard "$SLURM_ARRAY_TASK_ID/1" &',
        f"select {run} --budget 200regions{cores} &",
    ]
    (mapped,) = commands(dry(tiled.path, "predict", cluster=cluster))
    assert mapped.startswith(f"predict {run} -o ")
    assert mapped.endswith(f"{judging} &")
    assert ("--workers" in mapped) == ("--workers" in judging)


def test_without_a_cluster_file_nothing_is_shared_out(manifest: Path, tmp_path: Path) -> None:
    summary = dry(
        tmp_path / "run",
        *FLOW,
        manifest=manifest,
        budget="2%",
        config="cpu-small",
        overrides=["train.steps=3", "seed=1"],
    )
    settings = "-c cpu-small --set train.steps=3 --set seed=1"
    assert commands(summary) == [
        f"tile {manifest} -o {tmp_path}/run {settings} &",
        f"train {tmp_path}/run {settings} &",
        f'query {tmp_path}/run --shard "$SLURM_ARRAY_TASK_ID/1" &',
        f"select {tmp_path}/run --budget 2% &",
    ]
    for job in summary.jobs:
        assert "--time" not in job.text
        assert "--partition" not in job.text


def test_a_run_keeps_its_settings_and_a_file_is_named_whole(
    tiled: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert commands(dry(tiled.path, "train")) == [f"train '{tiled.path}' &"]
    (tmp_path / "mine.yaml").write_text("query: {budget: 3px}", "utf-8")
    summary = dry(tiled.path, "train", "query", "select", config="mine.yaml")
    assert commands(summary)[0] == f"train '{tiled.path}' -c {tmp_path}/mine.yaml &"
    assert commands(summary)[-1] == f"select '{tiled.path}' --budget 3px &"


def test_maps_and_polygons_are_named_by_the_round_they_will_be_of(
    tiled: Run, cluster: Path
) -> None:
    def written(*stages: str) -> list[str]:
        summary = dry(tiled.path, *stages, cluster=cluster)
        assert list(summary.outputs) == ["predict", "export"]
        maps, polygons = summary.outputs.values()
        assert commands(summary)[-2:] == [
            f"predict '{tiled.path}' -o '{maps}' &",
            f"export '{tiled.path}' -o '{polygons}' --workers 3 &",
        ]
        return [Path(path).relative_to(tiled.path).as_posix() for path in summary.outputs.values()]

    whole = ("query", "select", "predict", "export")
    assert written(*whole) == ["maps/r000", "polygons_r000.gpkg"]
    write_json(tiled.round(0).query_json, {})
    assert written("predict", "export") == ["maps/r000", "polygons_r000.gpkg"]
    write_json(tiled.round(0).ingest_json, {})
    assert written("predict", "export") == ["maps/r000", "polygons_r000.gpkg"]
    assert written("train", "predict", "export") == ["maps/r001", "polygons_r000.gpkg"]
    assert written("train", *whole) == ["maps/r001", "polygons_r001.gpkg"]
    write_json(tiled.round(1).model_json, {})
    assert written("predict", "export") == ["maps/r001", "polygons_r000.gpkg"]


def test_stages_with_gpus_must_use_them(tiled: Run, tmp_path: Path) -> None:
    cluster = tmp_path / "gpus.yaml"
    asked = "{gpus_per_node: 1, array: 2, at_once: 1}"
    cluster.write_text(f"stages: {{query: {asked}, predict: {asked}, export: {asked}}}", "utf-8")
    summary = dry(tiled.path, "query", "select", "predict", "export", cluster=cluster)
    named = {job.name: line for job, line in zip(summary.jobs, commands(summary), strict=True)}
    with_cuda = {name for name, line in named.items() if " --device cuda " in line}
    assert with_cuda == {"query", "predict", "predict-merge"}
    assert "#SBATCH --array=0-1%1\n" in summary.jobs[0].text
    train = dry(tiled.path, "train", cluster=cluster)
    assert "--device" not in commands(train)[0]


def test_a_chain_is_submitted_and_remembered(
    fake: FakeSlurm, manifest: Path, cluster: Path, tmp_path: Path
) -> None:
    run = Run(path=tmp_path / "run")
    summary = submit(run.path, FLOW, manifest=manifest, cluster=cluster)
    assert summary.job_ids == ("101", "102", "103", "104", "105")
    assert [line.split()[2] for line in fake.calls("sbatch")[1:]] == [
        f"--dependency=afterok:{number}" for number in (101, 102, 103, 104)
    ]
    assert sorted(path.name for path in run.slurm.iterdir()) == [
        *(".lock", "logs", "query.sbatch", "select.sbatch", "tile-merge.sbatch", "tile.sbatch"),
        "train.sbatch",
    ]
    assert (run.slurm / "train.sbatch").read_text("utf-8") == summary.jobs[2].text
    record = read_json(run.jobs)
    assert record["manifest"] == str(manifest)
    assert record["jobs"][0] == {"name": "tile", "stage": "tile", "job_id": "101", "tasks": 4}
    assert record["outputs"] == {}
    told = json.loads(json.dumps(summary.to_dict(), default=str))
    assert [job["after"] for job in told["jobs"][:2]] == [None, "tile"]
    assert told["jobs"][1]["job_id"] == "102"


def test_what_a_chain_writes_is_remembered(fake: FakeSlurm, tiled: Run) -> None:
    submit(tiled.path, ["train", "query", "select", "predict", "export"])
    record = read_jobs(tiled)
    assert record is not None
    maps, polygons = f"{tiled.path}/maps/r000", f"{tiled.path}/polygons_r000.gpkg"
    assert record.outputs == {"predict": maps, "export": polygons}
    assert record.folders == {
        "predict": f"{maps}/.predict",
        "export": f"{tiled.path}/.polygons_r000.gpkg.parts",
    }
    found = read_json(tiled.jobs)
    del found["outputs"], found["comment"]  # as they were written before
    write_json(tiled.jobs, found)
    assert read_jobs(tiled) == replace(record, outputs={}, comment="")


def test_every_chain_has_a_comment_of_its_own_behind_the_sites(
    fake: FakeSlurm, tiled: Run, tmp_path: Path
) -> None:
    cluster = tmp_path / "comment.yaml"
    cluster.write_text(
        "{cluster: {sbatch: {comment: ours}}, stages: {train: {sbatch: {comment: project 7}}}}",
        "utf-8",
    )
    comments = []
    for file in (None, cluster):
        submit(tiled.path, ["train", "query"], cluster=file)
        comments.append(read_json(tiled.jobs)["comment"])
    first, second = comments
    assert re.fullmatch("geohsal-[0-9a-f]{12}", first)
    assert first != second
    said = [line.partition("--comment=")[2] for line in fake.calls("sbatch")]
    assert [text.partition(" /")[0] for text in said] == [
        *(first, first, f"project 7 {second}", f"ours {second}")
    ]


def test_two_submits_of_a_run_at_the_same_time(fake: FakeSlurm, tiled: Run, tmp_path: Path) -> None:
    done = tmp_path / "inner"
    fake.says("sbatch", f"PATH=/usr/bin:/bin; while [ ! -e '{done}' ]; do sleep 0.05; done; echo 7")
    with ThreadPoolExecutor() as pool:
        first = pool.submit(submit, tiled.path, ["train"])
        while not fake.calls("sbatch"):
            time.sleep(0.02)
        try:
            with pytest.raises(RequestError, match="another submit of this run is under way"):
                submit(tiled.path, ["train"])
        finally:
            done.touch()
        assert first.result().job_ids == ("7",)
    assert len(fake.calls("sbatch")) == 1
    assert submit(tiled.path, ["train"]).job_ids == ("7",)


def test_where_there_are_no_locks_a_note_says_so(
    fake: FakeSlurm, tiled: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(handle: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", flock)
    summary = submit(tiled.path, ["train"])
    assert summary.job_ids == ("101",)
    assert "cannot be locked here (Function not implemented)" in summary.notes[-1]


@pytest.mark.usefixtures("fake")
def test_a_run_that_cannot_be_written(tiled: Run) -> None:
    tiled.slurm.touch()
    with pytest.raises(DataError, match=r"slurm/.lock: cannot be written \(File exists\)"):
        submit(tiled.path, ["train"])


def test_jobs_in_the_queue_are_not_doubled_but_cancelled(
    fake: FakeSlurm, manifest: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    submit(run, FLOW, manifest=manifest)
    fake.says("squeue", "echo '101|COMPLETED|None'; echo '102|RUNNING|None'")
    with pytest.raises(RequestError) as error:
        submit(run, FLOW, manifest=manifest)
    assert str(error.value) == (
        f"{run}: jobs of its last chain are still in the queue (train 102); wait for them, or "
        f"cancel them: geohsal submit --cancel {run}"
    )
    assert cancel(run).cancelled == {"train": "102"}
    assert fake.calls("scancel") == ["scancel 102"]
    fake.says("squeue", "exit 0")
    assert cancel(run).cancelled == {}
    assert submit(run, FLOW, manifest=manifest).job_ids[0] == "105"


def test_a_tiled_run_is_submitted_again_as_it_was(
    fake: FakeSlurm, manifest: Path, tmp_path: Path
) -> None:
    run = Run(path=tmp_path / "run")
    submit(run.path, FLOW, manifest=manifest)
    run.tiles.touch()
    submit(run.path, FLOW, manifest=manifest)
    assert f"tile {manifest} " in commands(submit(run.path, FLOW))[0]
    with pytest.raises(RequestError, match=r"was tiled from .*; leave --manifest out"):
        submit(run.path, FLOW, manifest=tmp_path / "other.yaml")
    assert len(fake.calls("sbatch")) == 12


def test_what_slurm_refuses_takes_the_chain_back(
    fake: FakeSlurm, manifest: Path, tmp_path: Path
) -> None:
    fake.says("sbatch", 'case "$*" in *train*) echo bad partition >&2; exit 1;; esac; echo 9')
    with pytest.raises(GeohsalError, match=r"train.sbatch: not submitted, and the jobs before it"):
        submit(tmp_path / "run", FLOW, manifest=manifest)
    assert fake.calls("scancel") == ["scancel 9"]


def test_a_failing_scancel_does_not_hide_why_a_job_was_refused(
    fake: FakeSlurm, manifest: Path, tmp_path: Path
) -> None:
    fake.says("sbatch", 'case "$*" in *train*) echo bad partition >&2; exit 1;; esac; echo 9')
    fake.says("scancel", "echo no controller >&2; exit 1")
    with pytest.raises(GeohsalError) as error:
        submit(tmp_path / "run", FLOW, manifest=manifest)
    said = str(error.value)
    assert "bad partition" in said
    assert "could not be cancelled (no controller); do it: scancel 9 (" in said


def test_a_job_that_may_be_there_is_said_to_be(
    fake: FakeSlurm, tiled: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "SBATCH_TIMEOUT_S", 0.2)
    fake.says("sbatch", "PATH=/bin:/usr/bin; exec sleep 5")
    with pytest.raises(GeohsalError) as error:
        submit(tiled.path, ["train"])
    (call,) = fake.calls("sbatch")
    comment = call.split("--comment=")[1].split()[0]
    said = str(error.value)
    assert "the job may be in the queue all the same" in said
    assert f"comment {comment} with: squeue --me -o '%i %k'" in said


@pytest.mark.parametrize(
    ("stages", "options", "kind", "message"),
    [
        ((), {}, RequestError, "no stage given; write some of tile train query"),
        (("trian",), {}, RequestError, "no stage 'trian'; did you mean 'train'?"),
        (("ingest",), {}, RequestError, "no stage 'ingest'; known: tile, train"),
        (("query", "train"), {}, RequestError, "are out of order; write: train query"),
        (("train", "train"), {}, RequestError, "are out of order; write: train"),
        (("train",), {"manifest": Path("m.yaml")}, RequestError, "--manifest: goes with the stage"),
        (("tile",), {"manifest": Path("m.yaml")}, RequestError, "is tiled already; leave tile and"),
        (("query",), {"budget": "2%"}, RequestError, "--budget: goes with the stage select"),
        (("query",), {"config": "default"}, RequestError, "-c and --set: are for tile and train"),
        (("query", "select"), {"budget": "lots"}, BudgetError, "budget 'lots': not a number"),
        (("train", "select"), {}, RunError, "select needs query before it in round 0; add query"),
        (("export",), {}, RunError, "export needs select before it"),
    ],
)
def test_what_makes_no_sense_is_refused(
    tiled: Run, stages: Sequence[str], options: dict[str, Any], kind: type, message: str
) -> None:
    with pytest.raises(kind) as error:
        dry(tiled.path, *stages, **options)
    assert message in str(error.value)
    assert error.value.exit_code == 2  # type: ignore[attr-defined]


def test_a_run_that_is_not_tiled_or_trained(tiled: Run, manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="is not tiled yet; add --manifest FILE"):
        dry(tmp_path / "new", "tile")
    with pytest.raises(RunError, match=r"not a run yet; put tile first: geohsal submit tile train"):
        dry(tmp_path / "new", "train")
    with pytest.raises(RunError, match="query needs train before it in round 0; add train"):
        dry(tmp_path / "new", "tile", "query", manifest=manifest)
    tiled.round(0).model_json.unlink()
    with pytest.raises(RunError, match="predict needs train before it"):
        dry(tiled.path, "predict")
    with pytest.raises(RequestError, match="has a control character in its name"):
        dry(tmp_path / "a\nb", "tile", manifest=manifest)
    with pytest.raises(RunError, match=r"nothing was submitted \(no jobs.json in it\)"):
        cancel(tmp_path)


def test_status_of_a_run_that_only_has_jobs(
    fake: FakeSlurm, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    submit(run, ["tile", "train"], manifest=manifest)
    fake.says("squeue", "echo '101|RUNNING|None'; echo '102|PENDING|Dependency'")
    assert status_lines(status(run)) == [
        f"{run}: synthetic-landscape, not tiled yet",
        "job tile 101: running",
        "job train 102: pending (Dependency)",
        "next: wait for the jobs; where one failed, see slurm/logs and submit again",
        f"  geohsal status {run}",
    ]
    fake.says("squeue", "exit 0")
    assert "job tile 101: no longer in the queue" in status_lines(status(run))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert (
        "jobs: tile 101, train 102; the queue cannot be asked (squeue: not found)"
        in status_lines(status(run))
    )


def test_status_of_a_run_whose_manifest_is_gone(
    fake: FakeSlurm, manifest: Path, tmp_path: Path
) -> None:
    gone = tmp_path / "gone.yaml"
    gone.write_text(manifest.read_text("utf-8"), "utf-8")
    for scene in manifest.parent.glob("*.tif"):
        (tmp_path / scene.name).symlink_to(scene)
    submit(tmp_path / "run", ["tile"], manifest=gone)
    gone.unlink()
    assert status_lines(status(tmp_path / "run"))[:2] == [
        f"{tmp_path}/run: {gone}, not tiled yet",
        "job tile 101: no longer in the queue",
    ]


def test_damaged_job_records_are_named(tmp_path: Path) -> None:
    Run(path=tmp_path).jobs.write_text('{"jobs": []}', "utf-8")
    with pytest.raises(DataError, match=r"jobs.json: damaged \(no manifest, folders in it\)"):
        cancel(tmp_path)
