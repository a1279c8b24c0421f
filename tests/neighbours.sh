#!/usr/bin/env bash
# The package beside Hugging Face's kernels, which transformers uses, installed before and after it: all three work, from elsewhere.
# Run by CI, where packages can be fetched:  bash tests/neighbours.sh
set -euo pipefail
cd "$(dirname "$0")/.."
python=$PWD/.venv/bin/python
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
git archive HEAD | (mkdir "$folder/source" && tar -x -C "$folder/source")
"$python" -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$folder" "$folder/source"
for order in "ours theirs" "theirs ours"; do
  rm -rf "$folder/venv"
  "$python" -m venv "$folder/venv"
  # What is heavy and ours already (torch and more) is seen there, too; what is installed there comes first.
  "$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > "$folder/venv/lib/$(basename "$folder"/venv/lib/python*)/site-packages/base.pth"
  for who in $order; do
    if [ "$who" = ours ]; then packages=("$folder"/recurrent_lm-*.whl); else packages=(transformers==5.24.0 kernels==0.17.2); fi
    "$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt "${packages[@]}"
  done
  (cd "$folder" && "$folder/venv/bin/python" - <<'END'
import kernels
import torch
import transformers
from recurrent_lm.kernels import LSTM
from recurrent_lm import lm

import recurrent_lm

assert "venv" in recurrent_lm.__file__ and callable(kernels.get_kernel), (recurrent_lm.__file__, kernels.__file__)
model = transformers.GPT2Model(transformers.GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=11))
hidden = model(torch.arange(5)[None]).last_hidden_state
assert LSTM(8, 4)(hidden.transpose(0, 1))[0].shape == (5, 1, 4)
assert lm.RunConfig
END
  )
  PATH="$folder/venv/bin:$PATH" lm --version > /dev/null
  echo "installed in the order $order: transformers, kernels and recurrent_lm work"
done
