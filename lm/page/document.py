"""Builds a page that contains a model: one HTML file with the rounded weights, the tokenizer, and the script that runs them."""

import base64
import gzip
import hashlib
import json
import re
from dataclasses import asdict, dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment

from recurrent_lm.lm.base.version import program_version
from recurrent_lm.lm.config import CorpusConfig
from recurrent_lm.lm.generation import Draws, encode_prompt, generate_batch
from recurrent_lm.lm.model import LanguageModel
from recurrent_lm.lm.page.units import characters_of, probe
from recurrent_lm.lm.page.vocabulary import for_page
from recurrent_lm.lm.page.weights import Packed, pack, unpack
from recurrent_lm.lm.runs.folder import Run, weights_of
from recurrent_lm.lm.scoring.copying import TrainingText
from recurrent_lm.lm.scoring.evaluate import evaluate
from recurrent_lm.lm.text.corpora import EMBEDDED
from recurrent_lm.lm.text.data import Data

SCRIPTS = ("weights.js", "model.js", "tokens.js", "drawing.js", "reading.js", "view.js")
TEMPERATURE = 0.8  # the page's first setting, also of the texts whose copying is counted
TEXTS = 20  # written after each prompt for that count; with fewer, a single long copy would change the share
TOKENS = {"word": 100, "bpe": 150, "char": 600}  # of each such text: about a hundred words
PROMPTS, PROMPT_WORDS = 4, 3  # beginnings of sentences of the held-out text
SENTENCE = re.compile(r"(?<=[a-z]{3}[.!?] )[A-Z][^.!?\n]{20,}")  # not after "Mr."


@dataclass(frozen=True)
class Rounding:
    """Bits per byte of the validation text, with the weights as they are and rounded."""

    before: float
    after: float
    tokens: int

    @property
    def cost(self) -> float:
        """The increase by rounding, in bits per byte."""
        return self.after - self.before


@dataclass(frozen=True)
class Copied:
    """Copying in ``texts`` texts of the model: ``share`` of their ``ngrams`` 5-grams occur in the training text, and at most
    ``longest`` words in a row do. ``held_out`` is the share for the validation text, which nobody copied.
    """

    texts: int
    ngrams: int
    share: float
    longest: int
    held_out: float


@dataclass(frozen=True)
class Page:
    """The ``html``, and its measurements, which are None without the training text.

    ``copied`` is None, too, where nothing that the model wrote, or nothing of the validation text, has five words in a row.
    """

    html: str
    parameters: int
    rounding: Rounding | None
    copied: Copied | None


def model_page(run: Run, data: Data | None, *, int8: bool = False, title: str = "", prompts: tuple[str, ...] = ()) -> Page:
    """Build the page of a run.

    Args:
        run: a trained model on the CPU.
        data: the run's texts, on which rounding, copying and units are measured; None leaves that out.
        int8: matrices in 8 bits instead of 16.
        title: its heading; "" takes the corpus's name.
        prompts: texts to begin with; without any, beginnings of sentences of the validation text.

    Returns:
        The HTML, with the measured costs.

    Raises:
        InputError: for weights that are not finite, prompts that are no text, and byte pairs of another program.
    """
    for prompt in prompts:
        encode_prompt(run, prompt)
    weights = weights_of(run.model)
    packed = pack(weights, int8)
    rounded = replace(run, model=rounded_model(run, packed))
    prompts = prompts or (held_out_prompts(data, run) if data else ())
    rounding = _rounding(run, rounded, data) if data else None
    copied = _copied(rounded, data, prompts) if data else None
    parameters = sum(weight.numel() for weight in weights.values())
    about = _about(run) | {"title": title or subject(run.config.corpus), "prompts": prompts, "temperature": TEMPERATURE}
    about |= {"parameters": parameters, "bits": 8 if int8 else 16, "citation": data.corpus.citation if data else ""}
    about |= {"rounding": rounding and asdict(rounding), "copied": copied and asdict(copied)}
    about |= {"units": _units(rounded, data) if data and run.tokenizer.kind == "char" else None}
    return Page(render(about, for_page(run.tokenizer), packed), parameters, rounding, copied)


def render(about: dict[str, Any], tokenizer: dict[str, Any], packed: Packed) -> str:
    """Render the page as one HTML text. Its security policy allows no other script and no request."""
    script = "\n".join(_asset(name) for name in SCRIPTS)
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    told = {"about": about, "tokenizer": tokenizer, "tensors": packed.tensors}
    return environment.from_string(_asset("page.html")).render(
        about=about,
        version=program_version(),
        style=_asset("style.css"),
        script=script,
        script_hash="sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        told=json.dumps(told, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"),
        weights=base64.b64encode(gzip.compress(packed.data, 9, mtime=0)).decode(),
    )


def rounded_model(run: Run, packed: Packed) -> LanguageModel:
    """The run's model with the rounded weights, as the page computes."""
    model = LanguageModel(run.tokenizer.size, run.config.model)
    weights = unpack(packed)
    if run.config.model.tie:
        weights["decoder.weight"] = weights["embedding.weight"]
    model.load_state_dict(weights)
    return model.eval()


def held_out_prompts(data: Data, run: Run) -> tuple[str, ...]:
    """The first words of sentences from the whole validation text, all of them known to the model."""
    texts = [piece.text for piece in data.corpus.splits()["valid"]]
    begins = [" ".join(m[0].split()[:PROMPT_WORDS]) for text in texts for m in SENTENCE.finditer(text)]
    known = [begin for begin in dict.fromkeys(begins) if not run.tokenizer.unknown(begin) and begin[-1].isalpha()]
    chosen = [known[i * len(known) // PROMPTS] for i in range(PROMPTS)] if known else []
    return tuple(dict.fromkeys(chosen))


def subject(corpus: CorpusConfig) -> str:
    """The name of the text that a model was trained on, for a heading."""
    if corpus.train_file:
        return Path(corpus.train_file).parent.resolve().name
    return EMBEDDED.get(corpus.source) or Path(corpus.source).stem


def _about(run: Run) -> dict[str, Any]:
    model = run.config.model
    told = {"cell": model.cell, "layers": model.layers, "hidden": model.hidden_size, "embedding": model.d}
    return told | {"tied": model.tie, "types": run.tokenizer.size, "kind": run.tokenizer.kind}


def _rounding(run: Run, rounded: Run, data: Data) -> Rounding:
    before, after = (evaluate(of.model, data.valid).bits_per_byte for of in (run, rounded))
    return Rounding(before, after, len(data.valid.ids))


def _copied(run: Run, data: Data, prompts: tuple[str, ...]) -> Copied | None:
    splits, tokens = data.corpus.splits(), run.config.tokens
    training = TrainingText((piece.text for piece in splits["train"]), tokens.lower, tokens.split)
    draws = Draws(TOKENS[run.tokenizer.kind], TEMPERATURE, seed=1)
    written = [
        training.compare(sample.text, prompt or "")
        for prompt in prompts or (None,)
        for sample in generate_batch(run, prompt, TEXTS, draws)
    ]
    held_out = [training.compare(piece.text) for piece in splits["valid"]]
    ngrams, held = (sum(c.ngrams for c in copied) for copied in (written, held_out))
    novel, held_novel = (sum(c.novel for c in copied) for copied in (written, held_out))
    if not ngrams or not held:  # such as DNA, which is a single word
        return None
    return Copied(len(written), ngrams, 1 - novel / ngrams, max(c.longest for c in written), 1 - held_novel / held)


def _units(run: Run, data: Data) -> dict[str, Any]:
    ids = data.valid.ids
    units = probe(run.model, ids, characters_of(ids, run.tokenizer.show))
    scores = {name: [round(float(s), 3) for s in values] for name, values in units.scores.items()}
    return {"scores": scores, "scale": [float(f"{s:.3g}") for s in units.scale]}


def _asset(name: str) -> str:
    return files("recurrent_lm.lm.page").joinpath(f"assets/{name}").read_text(encoding="utf-8")
