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

say lm train obama --preset demo --run "$out/obama"
say lm train trump --preset demo --run "$out/trump"
say lm generate "$out/obama" --prompt Jobs --length 80 --seed 1
say lm generate "$out/trump" --prompt "make the country" --length 80 --seed 1
say studies run gradient_lag --set run="$out/obama" --out "$out/gradient_lag.parquet"
say reports figure "$out/gradient_lag.parquet"
say reports build "$out/gradient_lag.parquet" --out "$out/report"

say lm runs "$out"
cat <<END

Everything is in $out/:
  obama/, trump/      the models: settings, logs, checkpoints, result.json
  gradient_lag.png    how far back the gradient of the loss reaches
  report/index.html   the same as a page to read in a browser:  reports open $out/report
Go on:  lm generate $out/obama --prompt "My fellow Americans" --temperature 0.7
        lm train --help      all settings
        (the commands are in .venv/bin)
END
