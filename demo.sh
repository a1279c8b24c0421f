#!/usr/bin/env bash
# The demonstration: every line that begins with $ is a command that you can type yourself.
set -euo pipefail

out=runs/demo
for ((n = 2; ; n++)); do
  [ -e "$out" ] || break
  out=runs/demo-$n # an existing run is never overwritten
done
mkdir -p "$out"

say() {
  printf '\n$'
  printf ' %q' "$@"
  printf '\n'
  "$@"
}

for speaker in obama trump; do
  for cell in rnn-tanh lstm; do
    say lm train "$speaker" --preset demo-pair --cell "$cell" --no-stage-directions --run "$out/$speaker-$cell"
  done
done
say lm generate "$out/obama-lstm" --prompt Jobs --length 60 --temperature 0.7 --seed 1
say lm generate "$out/trump-lstm" --prompt "make the country" --length 60 --temperature 0.7 --seed 1
say lm next "$out/obama-lstm" --prompt "the students opened their"
say reports training "$out"

cat <<END

Open $out/training.html in a browser: the four models side by side, what they write, and how far back their gradients reach.
Beside it in $out/ are the models: settings, logs, checkpoints, result.json.
Go on:  lm ask $out/obama-lstm                    asks a model line by line
        lm train my-speeches.txt                  your own text; lm train --help
        lm corpora download robotrump && lm train robotrump --preset quick-word    the campaign speeches of the lecture
        (the commands are in .venv/bin)
END
