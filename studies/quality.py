"""The plan behind the headline table of docs/results.md: three presets on three collections with three seeds, run by run.

A run that is finished is skipped, one that was stopped goes on, and trump-campaign comes first. Beside the networks stands the
interpolated Kneser-Ney model of the order that predicts the validation text best.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from recurrent_lm.lm import CorpusConfig, InputError, NGram, RunConfig, from_toml, lock, prepare, preset_file, replacing

if TYPE_CHECKING:
    from recurrent_lm.lm import Stream

CORPORA = ("trump-campaign", "obama", "trump")
PRESETS = ("best-char", "best-bpe", "best-word")
SEEDS = (1, 2, 3)
MOST = 20  # the highest order of an n-gram model


@dataclass(frozen=True)
class Member:
    """One training of the plan."""

    corpus: str
    preset: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.corpus}-{self.preset}-{self.seed}"


def plan() -> list[Member]:
    """All trainings in their order: a collection with its first seeds, then its second ones."""
    return [Member(corpus, preset, seed) for corpus in CORPORA for seed in SEEDS for preset in PRESETS]


def fill_quality(speeches: Path, out: Path, at_once: int = 2, options: Sequence[str] = (), most: int = MOST) -> str:
    """Train what is missing, count n-grams, and write the table into ``out``/quality.md.

    Args:
        speeches: a folder that holds the collections by name. One that is missing is left out.
        out: where runs, logs and the table go.
        at_once: trainings side by side, of one thread each.
        options: more options of ``lm train``, which change the presets.
        most: the highest order of an n-gram model.

    Returns:
        The table in Markdown.

    Raises:
        InputError: if no collection is there, or a training failed; what is finished is kept and in the table.
    """
    members = [member for member in plan() if (speeches / member.corpus).exists()]
    if not members:
        raise InputError(f"{speeches} holds none of {', '.join(CORPORA)}; name the folder that does with --speeches")
    out.mkdir(parents=True, exist_ok=True)
    held = lock(out)
    pool = ThreadPoolExecutor(at_once)
    try:
        codes = list(pool.map(lambda member: _train(member, speeches, out, options), members))
        for corpus in dict.fromkeys(member.corpus for member in members):
            for preset in PRESETS:
                _count(speeches / corpus, preset, out, most)
    finally:  # after an interrupt those that train are stopped by the same signal, and the others must not begin
        pool.shutdown(cancel_futures=True)
        held.release()
    text = quality_table(out)
    with replacing(out / "quality.md", "--out") as temporary:
        temporary.write_text(text)
    if failed := [member.name for member, code in zip(members, codes, strict=True) if code]:
        raise InputError(f"not trained: {', '.join(failed)}; {out / failed[0]}.log says why, and the same command goes on")
    return text


def _train(member: Member, speeches: Path, out: Path, options: Sequence[str]) -> int:
    """Train, or go on with a training. Returns the exit status."""
    run = out / member.name
    if (run / "result.json").exists():
        return 0
    if run.exists() and not (run / "last.json").exists():
        shutil.rmtree(run)  # it was stopped before its first checkpoint
    command = ["resume", str(run)]
    if not run.exists():
        command = ["train", str(speeches / member.corpus), "--preset", member.preset, "--seed", str(member.seed)]
        command += ["--threads", "1", "--no-texts", "--run", str(run), *options]
    with (out / f"{member.name}.log").open("a") as log:
        lm = [sys.executable, "-m", "recurrent_lm.lm", *command, "--quiet"]
        return subprocess.run(lm, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"}).returncode


def _count(corpus: Path, preset: str, out: Path, most: int) -> None:
    """Keep the scores of the best n-gram model on a collection and a preset's tokens, unless they are kept already."""
    kind = preset.removeprefix("best-")
    kept = out / f"{corpus.name}-{kind}-ngrams.json"
    if not kept.exists():
        scores = orders(corpus, kind, most)
        with replacing(kept, "--out") as temporary:
            temporary.write_text(json.dumps(scores, indent=1))


def orders(corpus: Path, kind: str, most: int = MOST) -> list[dict[str, float]]:
    """Bits per byte of the validation and the test text under the Kneser-Ney model of each order from 2 to ``most``."""
    tokens = from_toml(preset_file(f"best-{kind}")).tokens
    data = prepare(RunConfig(corpus=CorpusConfig(source=str(corpus)), tokens=tokens))

    def bits(model: NGram, stream: "Stream") -> float:
        return stream.bits_per_byte(-float(model.log_probs(stream.ids).sum()))

    scores = []
    for order in range(2, most + 1):
        model = NGram.fit(data.train.ids, data.tokenizer.size, order)
        scores.append({"order": order, "valid": bits(model, data.valid), "test": bits(model, data.test)})
    return scores


def quality_table(out: Path) -> str:
    """What is finished of the plan: mean and range of the seeds, in bits per byte.

    Args:
        out: the folder of ``fill_quality``.

    Returns:
        The table in Markdown; without rows if nothing is finished.
    """
    rows = [
        "| corpus | preset | seeds | validation | test | n-gram: order | its validation | its test |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for corpus in CORPORA:
        for preset in PRESETS:
            members = [Member(corpus, preset, seed) for seed in SEEDS]
            paths = [path for member in members if (path := out / member.name / "result.json").exists()]
            results: list[dict[str, Any]] = [json.loads(path.read_text()) for path in paths]
            counted = out / f"{corpus}-{preset.removeprefix('best-')}-ngrams.json"
            best = min(json.loads(counted.read_text()), key=lambda score: score["valid"]) if counted.exists() else None
            beside = [f"{best['order']}", f"{best['valid']:.3f}", f"{best['test']:.3f}"] if best else ["", "", ""]
            own = [_spread([result[split]["bits_per_byte"] for result in results]) for split in ("valid", "test")]
            if results or best:
                rows.append("| " + " | ".join([corpus, preset, str(len(results)), *own, *beside]) + " |")
    return "\n".join(rows) + "\n"


def _spread(values: list[float]) -> str:
    if len(values) < 2:
        return "".join(f"{value:.3f}" for value in values)
    return f"{mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"
