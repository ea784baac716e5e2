#!/usr/bin/env bash
# What takes minutes of waiting for Slurm's own clocks: a real time limit, and the loss of a node.
#     tests/cluster/nightly.sh          about 4 minutes, two cores; needs slurmd
set -euo pipefail
cd "$(dirname "$0")/../.."
command -v sbatch >/dev/null ||
  { echo "no Slurm: apt-get install --no-install-recommends slurm-wlm slurm-client munge slurm-wlm-basic-plugins" >&2; exit 1; }
pytest -q -m slurm tests/cluster/nightly_clocks.py "$@"
