"""The plans behind two tables of docs/results.md, run by run.

The headline table: three presets on three collections with three seeds, trump-campaign first. Beside the networks stands the
interpolated Kneser-Ney model of the order that predicts the validation text best. The ablation: one preset on trump-campaign,
whole and with one part changed, with the same three seeds.

A run that is finished is skipped, and one that was stopped goes on.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recurrent_lm.lm import CorpusConfig, InputError, NGram, RunConfig, from_toml, lock, prepare, preset_file, replacing
from recurrent_lm.studies.engine.statistics import mean

if TYPE_CHECKING:
    from recurrent_lm.lm import Stream

CORPORA = ("trump-campaign", "obama", "trump")
PRESETS = ("best-char", "best-bpe", "best-word")
SEEDS = (1, 2, 3)
MOST = 20  # the highest order of an n-gram model

ABLATED = "quick-word"  # a training takes a minute or two, where best-word takes twenty
CHANGES = {
    "none": (),
    "no-dropout": ("--dropout", "0"),
    "no-tie": ("--no-tie",),
    "no-average": ("--average", "0"),
    "no-embedding-dropout": ("--embedding-dropout", "0"),
    "no-locked": ("--no-locked",),
    "weight-drop": ("--weight-drop", "0.2"),
    "more-dropout": ("--dropout", "0.5"),
    "two-layers": ("--layers", "2"),
    "penalties": ("--ar", "2", "--tar", "1"),
}


@dataclass(frozen=True)
class Member:
    """One training of a plan."""

    corpus: str
    preset: str
    seed: int
    change: str | None = None  # of the ablation

    @property
    def name(self) -> str:
        return f"{self.corpus}-{self.change or self.preset}-{self.seed}"


def plan() -> list[Member]:
    """All trainings in their order: a collection with its first seeds, then its second ones."""
    return [Member(corpus, preset, seed) for corpus in CORPORA for seed in SEEDS for preset in PRESETS]


def ablation_plan() -> list[Member]:
    """All trainings of the ablation: every change with the first seed, then with the second one."""
    return [Member("trump-campaign", ABLATED, seed, change) for seed in SEEDS for change in CHANGES]


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
    members = _present(plan(), speeches)
    with _only_one(out):
        codes = _train_all(members, speeches, out, at_once, options)
        for corpus in dict.fromkeys(member.corpus for member in members):
            for preset in PRESETS:
                _count(speeches / corpus, preset, out, most)
    return _finish(quality_table(out), out / "quality.md", members, codes)


def fill_ablation(speeches: Path, out: Path, at_once: int = 2, options: Sequence[str] = ()) -> str:
    """Train what is missing of the ablation and write its table into ``out``/ablation.md.

    Args:
        speeches: a folder that holds trump-campaign.
        out: where runs, logs and the table go.
        at_once: trainings side by side, of one thread each.
        options: more options of ``lm train``, which change the preset in all rows.

    Returns:
        The table in Markdown.

    Raises:
        InputError: if the collection is not there, or a training failed; what is finished is kept and in the table.
    """
    members = _present(ablation_plan(), speeches)
    with _only_one(out):
        codes = _train_all(members, speeches, out, at_once, options)
    return _finish(ablation_table(out), out / "ablation.md", members, codes)


def _present(members: list[Member], speeches: Path) -> list[Member]:
    """Those whose collection is there."""
    present = [member for member in members if (speeches / member.corpus).exists()]
    if not present:
        missing = ", ".join(dict.fromkeys(member.corpus for member in members))
        raise InputError(f"{speeches} holds none of {missing}; name the folder that does with --speeches")
    return present


@contextmanager
def _only_one(out: Path) -> Iterator[None]:
    out.mkdir(parents=True, exist_ok=True)
    held = lock(out)
    try:
        yield
    finally:
        held.release()


def _train_all(members: list[Member], speeches: Path, out: Path, at_once: int, options: Sequence[str]) -> list[int]:
    pool = ThreadPoolExecutor(at_once)
    try:
        return list(pool.map(lambda member: _train(member, speeches, out, options), members))
    finally:  # after an interrupt those that train are stopped by the same signal, and the others must not begin
        pool.shutdown(cancel_futures=True)


def _finish(text: str, path: Path, members: list[Member], codes: list[int]) -> str:
    with replacing(path, "--out") as temporary:
        temporary.write_text(text)
    if failed := [member.name for member, code in zip(members, codes, strict=True) if code]:
        raise InputError(
            f"not trained: {', '.join(failed)}; {path.parent / failed[0]}.log says why, and the same command goes on"
        )
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
        command += ["--threads", "1", "--no-texts", "--run", str(run), *CHANGES[member.change or "none"], *options]
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
    rows = []
    for corpus in CORPORA:
        for preset in PRESETS:
            members = [Member(corpus, preset, seed) for seed in SEEDS]
            results = _results(members, out).values()
            counted = out / f"{corpus}-{preset.removeprefix('best-')}-ngrams.json"
            best = min(json.loads(counted.read_text()), key=lambda score: score["valid"]) if counted.exists() else None
            beside = [f"{best['order']}", f"{best['valid']:.3f}", f"{best['test']:.3f}"] if best else ["", "", ""]
            own = [_spread([result[split]["bits_per_byte"] for result in results]) for split in ("valid", "test")]
            if results or best:
                rows.append([corpus, preset, str(len(results)), *own, *beside])
    return _markdown("corpus|preset|seeds|validation|test|n-gram: order|its validation|its test", rows)


def ablation_table(out: Path) -> str:
    """What is finished of the ablation, in bits per byte.

    A change's differences are paired: each is of one seed, with and without the change. Their interval is Student's at 95%.

    Args:
        out: the folder of ``fill_ablation``.

    Returns:
        The table in Markdown; without rows if nothing is finished.
    """
    rows = []
    whole = _results([Member("trump-campaign", ABLATED, seed, "none") for seed in SEEDS], out)
    for change, options in CHANGES.items():
        results = _results([Member("trump-campaign", ABLATED, seed, change) for seed in SEEDS], out)
        cells = []
        for split in ("valid", "test"):
            cells.append(_spread([result[split]["bits_per_byte"] for result in results.values()]))
            pairs = [(results[seed], whole[seed]) for seed in results if seed in whole]
            differences = [a[split]["bits_per_byte"] - b[split]["bits_per_byte"] for a, b in pairs]
            cells.append(mean(differences).told("+.3f") if options and differences else "")
        if results:
            name = f"`{' '.join(options)}`" if options else f"`{ABLATED}`"
            rows.append([name, str(len(results)), *cells])
    return _markdown("change|seeds|validation|more than without it|test|more than without it", rows)


def _markdown(columns: str, rows: list[list[str]]) -> str:
    names = columns.split("|")
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|", *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join(lines) + "\n"


def _results(members: list[Member], out: Path) -> dict[int, dict[str, Any]]:
    """The results of the finished ones by seed."""
    paths = {member.seed: out / member.name / "result.json" for member in members}
    return {seed: json.loads(path.read_text()) for seed, path in paths.items() if path.exists()}


def _spread(values: list[float]) -> str:
    if len(values) < 2:
        return "".join(f"{value:.3f}" for value in values)
    return f"{mean(values).value:.3f} ({min(values):.3f} to {max(values):.3f})"
