"""The cluster file: read with care, for Slurm takes almost anything for something."""

from pathlib import Path

import pytest

from geohsal.config.cluster import ClusterFile, TrainStage, cluster_schema, load_cluster
from geohsal.errors import ConfigError

WHOLE = """
cluster:
  engine: slurm
  sbatch: {partition: gpu, account: abc, time: "04:00:00", exclusive: true}
  signal_lead_s: 240
  max_restarts: 3
  setup: ["module load cuda", "source /path/venv/bin/activate"]
stages:
  tile: {array: 64, cpus: 4, mem: 16G}
  train: {nodes: 2, gpus_per_node: "a100:4", cpus_per_task: 8, time: "24:00:00"}
  query: {array: 32, gpus_per_node: 1, cpus: 8, mem: 32G, sbatch: {constraint: fast}}
  select: {cpus: 4, mem: 8G, budget: 200regions}
"""


def load(tmp_path: Path, text: str) -> ClusterFile:
    path = tmp_path / "cluster.yaml"
    path.write_text(text, "utf-8")
    return load_cluster(path)


def test_a_whole_file(tmp_path: Path) -> None:
    file = load(tmp_path, WHOLE)
    assert file.cluster.sbatch["exclusive"] is True
    assert file.cluster.setup == ("module load cuda", "source /path/venv/bin/activate")
    assert (file.stages.train.tasks, file.stages.train.time) == (4, "24:00:00")
    assert (file.stages.query.array, file.stages.query.sbatch) == (32, {"constraint": "fast"})
    assert file.stages.predict.array == 1


def test_an_empty_file_asks_for_nothing(tmp_path: Path) -> None:
    assert load(tmp_path, "") == ClusterFile()
    assert (TrainStage().tasks, TrainStage(tasks_per_node=2, gpus_per_node=4).tasks) == (1, 2)
    assert TrainStage(gpus_per_node="4").tasks == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stages: {trian: {}}", "unknown key 'stages.trian'; did you mean 'train'?"),
        ("stages: {query: {aray: 3}}", "unknown key 'stages.query.aray'; did you mean 'array'?"),
        ("stages: {select: {array: 3}}", "unknown key 'stages.select.array'"),
        ("stages: {tile: {array: 0}}", "stages.tile.array: "),
        ("stages: {train: {time: 24:00:00}}", "stages.train.time: must be text in quotes, such as"),
        ("cluster: {sbatch: {time: 24:00:00}}", "cluster.sbatch: must be text in quotes"),
        ("cluster: {sbatch: {array: 0-3}}", "'array' is set by geohsal"),
        ("cluster: {sbatch: {--qos: high}}", "'--qos' is no long option of sbatch"),
        ('cluster: {sbatch: {comment: "a\\nb"}}', "must be one line of text"),
        ('cluster: {setup: ["a\\nb"]}', "cluster.setup.0: must be one line of text"),
        ("cluster: {signal_lead_s: 119}", "cluster.signal_lead_s: "),
        ("cluster: {sbatch: {gpus: 4}}", "'gpus' asks for GPUs that geohsal would not use; use"),
        ("stages: {train: {sbatch: {gpus-per-task: 1}}}", "would not use; use gpus_per_node"),
        ("stages: {train: {sbatch: {gres: 'gpu:a100:4'}}}", "'gres' asks for GPUs that geohsal"),
        ("stages: {train: {sbatch: {gres: 'gpu:4'}}}", "stages.train.sbatch: 'gres' asks for"),
        ("stages: {query: {array: 3, at_once: 0}}", "stages.query.at_once: "),
        ("cluster: {engine: dask}", "only slurm is submitted; for dask, give the address"),
        ("cluster: {engine: local}", "run the commands themselves, with --workers N"),
        ("cluster: {engine: pbs}", "cluster.engine: Input should be 'slurm', found 'pbs'"),
        ("stages: {query: {gpus_per_node: 0}}", "must be a number above 0, or kind and number"),
        ("stages: {train: {gpus_per_node: 'a100:x'}}", "must be a number above 0, or kind and"),
        ("stages: {select: {budget: lots}}", "stages.select.budget: must be a number with a unit"),
        ("[1]", "must be a mapping of keys, found list"),
        ("cluster: {setup: [!!python/name:os.system ls]}", "not valid YAML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(tmp_path, text)
    assert str(error.value).startswith(f"cluster file {tmp_path}/cluster.yaml: ")
    assert message in str(error.value)


def test_other_things_than_gpus_may_be_asked_for_by_name(tmp_path: Path) -> None:
    file = load(tmp_path, "cluster: {signal_lead_s: 120, sbatch: {gres: 'nvme:100'}}")
    assert file.cluster.sbatch == {"gres": "nvme:100"}


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere.yaml: cannot be read .*leave --cluster out"):
        load_cluster(tmp_path / "nowhere.yaml")


def test_every_key_is_described_in_the_schema() -> None:
    for section in cluster_schema()["$defs"].values():
        for name, key in section["properties"].items():
            assert "description" in key or "$ref" in key, name
