#!/usr/bin/env bash
# Makes the golden numbers of tests/golden anew, with PyTorch in a virtual environment of its own (3 GB).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv=${XDG_CACHE_HOME:-$HOME/.cache}/senet/golden-venv
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --requirement scripts/requirements.txt
"$venv/bin/python" scripts/golden.py
"$venv/bin/python" scripts/golden_pixels.py
"$venv/bin/python" scripts/golden_augment.py >tests/golden/augment.json.new
mv tests/golden/augment.json.new tests/golden/augment.json
"$venv/bin/python" scripts/golden_optim.py
"$venv/bin/python" scripts/golden_evaluation.py
"$venv/bin/python" scripts/golden_meta.py
"$venv/bin/python" scripts/golden_tensorboard.py
