#!/usr/bin/env bash
# What takes too long for .ci/run: other examples for the property tests, every command killed at 60
# moments, Slurm's own clocks.
#     tests/nightly.sh          about 17 minutes, two cores; the last step needs slurmd
set -euo pipefail
cd "$(dirname "$0")/.."
pytest -q -n 0 --hypothesis-profile=explore \
  -m "hypothesis and not (slow or kill or qgis or html or slurm or real or gpu)"
GEOHSAL_KILLS=${GEOHSAL_KILLS:-60} pytest -q -n 0 -m kill
tests/cluster/nightly.sh
