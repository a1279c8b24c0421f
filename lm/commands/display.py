"""The output of commands about corpora, models and runs."""

import csv
import shlex
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from recurrent_lm import lm
from recurrent_lm.lm.base.progress import shown_perplexity
from recurrent_lm.lm.config import ModelConfig, RunConfig
from recurrent_lm.lm.parameter_counts import parameter_table
from recurrent_lm.lm.text import advice
from recurrent_lm.lm.text.prompt import prompt_of
from recurrent_lm.lm.text.tokenizer import EOS
from recurrent_lm.lm.text.words import word_counts

if TYPE_CHECKING:
    from recurrent_lm.lm.runs.folder import Run
    from recurrent_lm.lm.scoring.compare import Compared, How
    from recurrent_lm.lm.scoring.evaluate import Score
    from recurrent_lm.lm.training.loop import Training

LLAMA_TOKENS = 15e12  # (Grattafiori et al. 2024)
TRIMMED = 0.01  # share of trimmed training tokens above which they are reported
WORDS_A_MINUTE = 130  # of a speech (Yuan, Liberman & Cieri 2006 give 120 to 180 for English)


def introduction(training: "Training") -> str:
    """The lines before a training: text, model, batches, machine and run folder."""
    config, data = training.config, training.data
    model, machine = config.model, config.machine
    words = word_counts((text for _, text in data.corpus.documents), config.tokens.split, config.tokens.lower).total()
    shared = f"{training.ranks.size} processes of " * (training.ranks.size > 1)
    minutes, trimmed = words / WORDS_A_MINUTE, training.batches.trimmed
    lost = f"; tokens at the end of the training text that fill no row and are not read as inputs: {trimmed}"
    lines = [
        f"{data.corpus.name}: {_count(len(data.corpus.documents), 'document')}, {words:,} words, about "
        + (f"{minutes / 60:.1f} hours of speech" if minutes >= 60 else f"{_count(round(minutes), 'minute')} of speech"),
        f"{config.tokens.kind} tokens: {len(data.train.ids):,} to train on, {len(data.valid.ids):,} to validate, "
        f"{len(data.test.ids):,} to test; |V| = {data.tokenizer.size:,}",
        "unknown to the vocabulary: "
        + ", ".join(
            f"{stream.unknown / max(len(stream.ids), 1):.1%} of the {name} tokens"
            for name, stream in (("training", data.train), ("validation", data.valid), ("test", data.test))
        ),
        *advice.doubts(data.tokenizer, data.valid.unknown, len(data.valid.ids)),
        f"{model.layers} x {model.cell}, {model.hidden_size} units, embeddings of {model.d}, "
        f"{'tied' if model.tie else 'not tied'}: {sum(p.numel() for p in training.model.parameters()):,} parameters",
        f"batches of k = {config.batches.rows} rows by L = {config.batches.bptt} steps"
        + lost * (trimmed >= TRIMMED * len(data.train.ids)),
        f"{machine.device}, {shared}{_count(machine.threads, 'thread')}, {machine.backend} backend, {machine.precision}"
        + f" ({training.why})" * bool(training.why),
        f"run: {training.path}",
    ]
    return "\n".join(lines)


def result(training: "Training", scores: "dict[str, Score]") -> str:
    """The best model's figures, and the next command to try."""
    at, raw = training.at, training.data.tokenizer.raw_is
    of = f" of {raw}" if raw else ""
    lines = [f"best after epoch {at.best_epoch} of {at.epoch}:"]
    for split, score in scores.items():
        lines.append(
            f"  {'validation' if split == 'valid' else split}: loss {score.loss:.4f} nats/token, perplexity "
            f"{shown_perplexity(score.perplexity)}, {score.bits_per_byte:.3f} bits per byte{of}; "
            f"{advice.unknown_share(score.unknown_tokens, score.tokens)}"
        )
    lines += advice.little_text(training.data.corpus, training.config.tokens)
    unknown, tokens = (sum(getattr(score, name) for score in scores.values()) for name in ("unknown_tokens", "tokens"))
    lines += advice.doubts(training.data.tokenizer, unknown, tokens)
    lines += ["what comes next:", *(f"  {shlex.join(command)}" for command in _next_commands(training))]
    return "\n".join(lines)


def _next_commands(training: "Training") -> list[list[str]]:
    """Three things to do with a new model: let it write, ask it, and see how it learnt."""
    run, prompt = str(training.path), training.config.training.sample or prompt_of(training.data)
    write = ["lm", "generate", run, *(["--prompt", prompt] if prompt else [])]
    return [write, ["lm", "ask", run], ["reports", "training", run]]


def evaluation_table(run: "Run", how: "How", compared: "Compared") -> None:
    """The output of ``lm eval``."""
    from recurrent_lm.lm.scoring.evaluate import parts

    stream, raw = compared.stream, run.tokenizer.raw_is
    rows, _ = parts(len(stream.ids), how.rows)
    after = f", each after {_count(how.warmup, 'token')} or all before it" if how.warmup else ""
    unknown = advice.unknown_share(stream.unknown, len(stream.ids))
    read = f"{rows:,} rows{after}" if rows > 1 else "one row, the state carried from start to end"
    print(f"{how.split} text of {compared.corpus}: {len(stream.ids):,} tokens, {stream.bytes:,} bytes, {unknown}; {read}")
    table = Table(box=None, pad_edge=False)
    for column in ("", "nats/token", "perplexity", f"bits per byte{' of ' + raw if raw else ''}"):
        table.add_column(column, justify="right" if column else "left")
    for name, score in compared.scores:
        table.add_row(name, f"{score.loss:.4f}", shown_perplexity(score.perplexity), f"{score.bits_per_byte:.3f}")
    _console().print(table)
    for warning in compared.warnings:
        print(warning)


def runs_table(folder: Path, as_csv: bool = False) -> None:
    """One line for each run; as CSV with every column."""
    from recurrent_lm.lm.runs.folder import summaries

    rows = list(summaries(folder))
    if as_csv:
        writer = csv.DictWriter(sys.stdout, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return
    if not rows:
        print(f"no runs below {folder}; lm train makes one")
        return
    console = _console()
    narrow = console.width < 100  # such as 80 columns: then names of runs tell the corpus, too
    figures = {"types": "|V|", "epochs": "epochs", "perplexity": "ppl", "unknown": "unk"}
    figures |= {"bits_per_byte": "valid b/B", "test_bits_per_byte": "test b/B"}
    texts = ["run", *([] if narrow else ["corpus"]), "tokens", "types", "model", "epochs"]
    table = Table(box=None, pad_edge=False, padding=(0, 1 if narrow else 2, 0, 0))
    for name in dict.fromkeys([*texts, *figures, "state"]):
        heading = figures.get(name, name).replace(" ", "\n" if narrow else " ")
        justify: Any = "right" if name in figures else "left"
        table.add_column(heading, justify=justify, overflow="fold", no_wrap=name not in ("run", "corpus", "state"))
    for row in rows:
        figure = {"perplexity": shown_perplexity, "unknown": "{:.1%}".format}
        numbers = ["" if row.get(k) is None else figure.get(k, "{:.3f}".format)(row[k]) for k in list(figures)[2:]]
        table.add_row(*map(escape, [*("" if row.get(k) is None else str(row[k]) for k in texts), *numbers, row["state"]]))
    console.print(table)


def params_table(vocabulary: int, config: ModelConfig) -> None:
    """The lecture's table, tied and not tied side by side."""
    tables = {tie: parameter_table(vocabulary, replace(config, tie=tie), tie) for tie in (False, True)}
    out = Table(box=None, pad_edge=False)
    for column, justify in (("", "left"), ("shape", "left"), ("not tied", "right"), ("shape", "left"), ("tied", "right")):
        out.add_column(column, justify=justify)  # type: ignore[arg-type]
    for name in tables[True]:
        (free_shape, free), (tied_shape, tied) = tables[False][name], tables[True][name]
        out.add_row(name, free_shape, f"{free:,}", tied_shape, f"{tied:,}")
    totals = {tie: sum(count for _, count in rows.values()) for tie, rows in tables.items()}
    out.add_row("total", "", f"{totals[False]:,}", "", f"{totals[True]:,}")
    _console().print(out)
    print(
        f"{config.layers} x {config.cell}, |V| = {vocabulary:,}, d = {config.d}, h = {config.hidden_size}; "
        f"tying saves {1 - totals[True] / totals[False]:.0%} of the parameters"
    )


def corpus_report(config: RunConfig, top: int) -> None:
    """The output of ``lm corpora show``."""
    data = lm.prepare(config)
    documents = [text for _, text in data.corpus.documents]
    words = word_counts(documents, config.tokens.split, config.tokens.lower)
    characters = Counter("".join(documents))
    print(f"{data.corpus.name}: {_count(len(documents), 'document')}")
    if data.corpus.citation:
        print(data.corpus.citation)
    print(
        f"{sum(words.values()):,} words of {len(words):,} types, "
        f"{sum(characters.values()):,} characters of {len(characters)} types, {sum(len(t.encode()) for t in documents):,} bytes"
    )
    table = Table(box=None, pad_edge=False)
    for column in (
        "split",
        f"{config.tokens.kind} tokens",
        "types in it",
        "unknown tokens",
        "bytes",
        "documents that end in it",
    ):
        table.add_column(column, justify="left" if column == "split" else "right")
    splits = data.corpus.splits()
    for name in splits:
        stream = getattr(data, name)
        share = f"{stream.unknown:,} ({stream.unknown / len(stream.ids):.2%})"
        ends = int((stream.ids == EOS).sum())
        table.add_row(name, f"{len(stream.ids):,}", f"{len(set(stream.ids.tolist())):,}", share, f"{stream.bytes:,}", f"{ends}")
    _console().print(table)
    more = LLAMA_TOKENS / max(len(data.train.ids), 1) / 1e6
    for warning in advice.little_text(data.corpus, config.tokens):
        print(warning)
    print(f"Llama 3 was trained on {more:,.0f} million times as many tokens as the training split holds")
    print(f"vocabulary of the {config.tokens.kind} tokenizer, from the training split: {data.tokenizer.size:,} types")
    for sentence in advice.of_data(data, config.tokens):
        print(sentence)
    if top:
        print("most frequent words: " + ", ".join(f"{word} {count:,}" for word, count in words.most_common(top)))


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _console() -> Console:
    # A pipe has no width; this one keeps each row on a line, for grep.
    return Console(width=None if sys.stdout and sys.stdout.isatty() else 1000, highlight=False)
