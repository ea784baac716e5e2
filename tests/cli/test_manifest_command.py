"""`geohsal manifest`: protocol lines, JSON, and what is refused."""

import json
import re
from pathlib import Path

import dataset_factory as factory
import pytest
from click.testing import CliRunner, Result

from geohsal.cli.main import cli
from geohsal.io.manifest import load_manifest


def invoke(*argv: str) -> Result:
    return CliRunner().invoke(cli, argv)


def test_the_protocol_is_printed(tmp_path: Path) -> None:
    root, out = factory.vaihingen(tmp_path / "data", eroded=True), tmp_path / "v.yaml"
    result = invoke("manifest", "vaihingen", str(root), "-o", str(out), "--boundaries", "eroded")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == f"{out}: written"
    assert "  dataset: ISPRS Vaihingen 2D, split isprs-val" in lines
    assert "  train: 11 scenes, areas 1, 3, 5, 7, 13, 17, 21, 23, 26, 32, 37" in lines
    assert "  classes: 5, clutter is ignored" in lines
    assert "  boundaries: eroded masks on test, full ones elsewhere" in lines
    assert any(line.startswith("  crop: none") for line in lines)
    again = invoke("manifest", "vaihingen", str(root), "-o", str(out), "--boundaries", "eroded")
    assert again.stdout.startswith(f"{out}: nothing new\n")


def test_first_labels_come_along_and_are_counted(tmp_path: Path) -> None:
    root, out = factory.loveda(tmp_path / "data"), tmp_path / "l.yaml"
    result = invoke(
        "manifest", "loveda", str(root), "-o", str(out), "--seed-share", "50%",
        "--region-px", "8", "--seed", "2", "-q",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    found = re.search(r"first labels: (\d+) regions in 4 scenes, ([\d,]+) pixels", result.stdout)
    assert found is not None, result.stdout
    assert 48 * int(found[1]) <= int(found[2].replace(",", "")) <= 64 * int(found[1])
    assert "forest               in " in result.stdout
    assert load_manifest(out).scene("train_rural_9").labels is not None


def test_any_manifest_with_truth_can_be_seeded(tmp_path: Path) -> None:
    root, out = factory.cityscapes(tmp_path / "data"), tmp_path / "c.yaml"
    assert invoke("manifest", "cityscapes", str(root), "-o", str(out)).exit_code == 0
    seeded = tmp_path / "seeded.yaml"
    argv = ("manifest", "seed", str(out), "-o", str(seeded), "--share", "10%", "--region-px", "8")
    result = invoke(*argv, "--json", "-q")
    assert result.exit_code == 0, result.output
    values = json.loads(result.stdout)
    assert (values["written"], values["scenes"]) == (True, 4)
    assert values["pixels"] <= 0.2 * values["pool"]
    assert f"{seeded}: nothing new" in invoke(*argv).stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seed-share", "0.01"], "write a share like 1%"),
        (["--seed-share", "120%"], "write a share like 1%"),
        (["--seed-share", "much%"], "write a share like 1%"),
        (["--seed", "3"], "give --seed-share as well"),
    ],
)
def test_a_wrong_request_is_one_line(options: list[str], message: str, tmp_path: Path) -> None:
    result = invoke("manifest", "cityscapes", str(tmp_path), "-o", str(tmp_path / "c"), *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_missing_data_is_one_line(tmp_path: Path) -> None:
    result = invoke("manifest", "loveda", str(tmp_path), "-o", str(tmp_path / "l.yaml"))
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr.startswith(f"geohsal: error: {tmp_path}: no train images of urban and")
    assert len(result.stderr.splitlines()) == 1
