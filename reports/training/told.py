"""Words and tables of a page on trainings: the answer, the differing settings, texts, and divergences."""

from collections import defaultdict
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from recurrent_lm.lm import History, RunConfig

TEXTS = (1, 3)  # epochs whose texts are always shown, beside that of the best
ELSEWHERE = ("threads", "device", "run", "source", "train_file", "valid_file", "test_file")  # among the facts, or not shown


@dataclass(frozen=True)
class Text:
    """A text that a model wrote after an epoch, to continue a prompt."""

    epoch: int
    prompt: str
    text: str
    best: bool


def labels(paths: list[Path]) -> list[str]:
    """The shortest ends of the paths that distinguish them."""
    for n in count(1):
        ends = ["/".join(path.absolute().parts[-n:]) for path in paths]
        if len(set(ends)) == len(ends) or n > max(len(path.absolute().parts) for path in paths):
            return ends
    raise AssertionError("count does not end")


def answer(histories: list[History], names: list[str]) -> str:
    """The models in the order of their predictions, one sentence for each text."""
    by_text: dict[str, list[tuple[float, str]]] = defaultdict(list)
    waiting = [name for history, name in zip(histories, names, strict=True) if not history.best]
    for history, name in zip(histories, names, strict=True):
        if best := history.best:
            figures = f"{best['valid_bits_per_byte']:.3f} bits a byte (perplexity {best['valid_perplexity']:,.1f})"
            sentence = f"{name} {figures} after epoch {best['epoch']} of {len(history.epochs)}"
            by_text[corpus_of(history)].append((best["valid_bits_per_byte"], sentence))
    sentences = [f"On {text}: {'; '.join(sentence for _, sentence in sorted(models))}." for text, models in by_text.items()]
    if waiting:
        sentences.append(f"{', '.join(waiting)}: no epoch has ended yet.")
    return " ".join(sentences)


def corpus_of(history: History) -> str:
    """The corpus's name; stage directions left out make it another text, so this is part of it."""
    name = str(history.about.get("corpus", {}).get("name", "an unknown text"))
    return name if history.config.corpus.stage_directions else f"{name} without stage directions"


def state(history: History) -> str:
    """The state of a training in a word or two."""
    if history.running:
        return "goes on"
    if history.result:
        return "done"
    return "diverged" if history.diverged else "stopped"


def differences(histories: list[History]) -> list[tuple[str, list[str]]]:
    """(section.setting, its value in each run) of the settings that differ; for a single run, of those that are not the
    defaults.
    """
    usual, rows = RunConfig(), []
    for section, f in RunConfig.settings():
        values = [getattr(getattr(h.config, section), f.name) for h in histories]
        compared = values if len(values) > 1 else [*values, getattr(getattr(usual, section), f.name)]
        if f.name not in ELSEWHERE and any(value != compared[0] for value in compared):
            rows.append((f"{section}.{f.name}", [shown(value) for value in values]))
    return rows


def shown(value: Any) -> str:
    """A value as a table shows it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value) or "none"


def facts(histories: list[History]) -> list[tuple[str, list[str]]]:
    """(name, its value in each run): corpus, tokens, unknown words, model, time and figures."""
    return [(name, [_fact(tell, h) for h in histories]) for name, tell in _FACTS.items()]


def _fact(tell: Any, history: History) -> str:
    try:
        return str(tell(history, history.about.get("corpus", {})))
    except (KeyError, TypeError, ZeroDivisionError):  # not recorded by older versions, or not known yet
        return ""


def _shares(corpus: dict[str, Any]) -> str:
    tokens, unknown = corpus["tokens"], corpus["unknown_tokens"]
    return ", ".join(f"{unknown[s] / tokens[s]:.1%} {name}" for s, name in (("train", "training"), ("valid", "validation")))


_FACTS = {
    "training": lambda h, c: state(h),
    "text": lambda h, c: corpus_of(h),
    "documents": lambda h, c: f"{c['documents']:,}",
    "training tokens": lambda h, c: f"{c['tokens']['train']:,}",
    "validation tokens": lambda h, c: f"{c['tokens']['valid']:,}",
    "vocabulary |V|": lambda h, c: f"{c['types']:,}",
    "unknown tokens": lambda h, c: _shares(c),
    "model": lambda h, c: f"{h.config.model.layers} x {h.config.model.cell}, {h.config.model.hidden_size} units",
    "parameters": lambda h, c: f"{h.about['parameters']:,}",
    "epochs, updates": lambda h, c: f"{len(h.epochs)}, {h.epochs[-1]['step'] if h.epochs else len(h.steps):,}",
    "seconds of training": lambda h, c: f"{sum(r['seconds'] for r in h.epochs):,.0f}",
    "best epoch": lambda h, c: h.best["epoch"],
    "validation, nats a token": lambda h, c: f"{h.best['valid_loss']:.4f}",
    "validation, perplexity": lambda h, c: f"{h.best['valid_perplexity']:,.2f}",
    "validation, bits a byte": lambda h, c: f"{h.best['valid_bits_per_byte']:.3f}",
    "test, perplexity": lambda h, c: f"{h.result['test']['perplexity']:,.2f}",
    "test, bits a byte": lambda h, c: f"{h.result['test']['bits_per_byte']:.3f}",
    "clipped updates": lambda h, c: f"{sum(bool(r['clipped']) for r in h.steps) / len(h.steps):.1%}",
    "precision, device": lambda h, c: f"{h.config.machine.precision}, {h.config.machine.device}",
    "command": lambda h, c: h.about["command"],
}


def texts(history: History) -> list[Text]:
    """The texts that the model wrote after each epoch, in order."""
    best = history.best["epoch"] if history.best else 0
    return [Text(r["epoch"], r["prompt"], r["text"], r["epoch"] == best) for r in history.samples]


def chosen(written: list[Text]) -> list[Text]:
    """The texts that are always shown."""
    return [text for text in written if text.best or text.epoch in TEXTS]


def troubles(history: History) -> list[tuple[str, list[float]]]:
    """(the quantity that was not finite, the gradient norms of the updates before), for each rollback and for the end."""
    records = [*history.rollbacks, *([history.diverged] if history.diverged else [])]
    rows = []
    for record in records:
        back = f"; back to update {record['back_to_step']} at rate {record['next_lr']:.3g}" if "back_to_step" in record else ""
        rows.append((f"{record['what']}{back}. {record.get('advice', '')}".strip(), list(record["grad_norms"])))
    return rows
