"""The commands that ask a trained model: generate, next, score, eval. ``lm.commands.cli`` puts them on the command line."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from recurrent_lm import lm
from recurrent_lm.lm.base.errors import InputError
from recurrent_lm.lm.base.settings import shown
from recurrent_lm.lm.base.storage import replacing
from recurrent_lm.lm.text.files import decode, read_bytes, read_text

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="a run folder", show_default=False)]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N")]
PromptFile = Annotated[Path | None, typer.Option(help="take the prompt from this file; line ends at its end are dropped")]
Encoding = Annotated[str, typer.Option(help="how the prompt's file or standard input is encoded")]
AsJson = Annotated[bool, typer.Option("--json", help="print one JSON object instead")]


def generate(
    run: RunArgument,
    prompt: Annotated[
        str | None, typer.Option(help="text to go on from, - for standard input; without it, begin as a document does")
    ] = None,
    prompt_file: PromptFile = None,
    encoding: Encoding = "utf-8",
    length: Annotated[int, typer.Option(help="tokens at most")] = 100,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token, 1 draws as the model says")] = 0.8,
    top_k: Annotated[int, typer.Option(help="draw from this many likeliest tokens; 0 from all")] = 0,
    top_p: Annotated[float, typer.Option(help="draw from the likeliest tokens that hold this much probability")] = 1.0,
    no_repeat_ngram: Annotated[int, typer.Option(help="never say so many tokens in a row twice; 0 allows it")] = 0,
    stop: Annotated[list[str] | None, typer.Option(help="stop before this text; may be given several times")] = None,
    seed: Annotated[int | None, typer.Option(help="repeat the same draws")] = None,
    samples: Annotated[int, typer.Option(help="how many texts, made side by side")] = 1,
    ngram: Annotated[
        int, typer.Option(min=0, max=20, help="let a Kneser-Ney model of this order write instead; 0 for the network")
    ] = 0,
    copied: Annotated[bool, typer.Option(help="say how much of it is copied from the training text")] = True,
    corpus: Annotated[str, typer.Option(metavar="PATH", help="where the training text is now, if it was moved")] = "",
    as_json: AsJson = False,
    device: Device = "auto",
) -> None:
    """Let a trained model go on with a prompt, token by token.

    [dim]lm generate runs/obama-word-lstm --prompt Jobs --temperature 0.7[/dim]
    [dim]lm generate runs/trump-word-gru --prompt "make the country" --temperature 0 --no-repeat-ngram 4 --stop .[/dim]
    """
    from recurrent_lm.lm.generation import encode_prompt

    how: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed}
    how |= {"no_repeat_ngram": no_repeat_ngram, "stop": tuple(stop or ())}
    draws = lm.Draws(length, **how)
    if corpus and not (copied or ngram):
        raise InputError("--corpus is compared with what is written, which --no-copied leaves out; give only one of them")
    prompt = _prompt(prompt, prompt_file, encoding)
    model = opened(run, device)
    moved = _training_text(model, corpus) if corpus and copied else None
    counted = _counts(model, ngram, corpus) if ngram else None
    if prompt is not None:
        encode_prompt(model, prompt)
        say_unknown(model, prompt)
    if samples == 1 and not as_json:
        print(prompt or "", end="", flush=True)
        text = ""
        for piece in lm.generate(model, prompt, length, **how, ngram=counted):
            print(piece, end="", flush=True)
            text += piece
        print()
        if training := moved or (_training_text(model) if copied else None):
            print(f"lm: {training.compare(text, prompt or '')}", file=sys.stderr)
        return
    batch = lm.generate_batch(model, prompt, samples, draws, counted)
    training = moved or (_training_text(model) if copied else None)
    reports = [training.compare(sample.text, prompt or "") if training else None for sample in batch]
    if as_json:
        texts = [
            {"text": s.text, "tokens": s.tokens, "ended": s.ended, "copied": vars(report) if report else None}
            for s, report in zip(batch, reports, strict=True)
        ]
        about = {"run": str(run), "prompt": prompt, "length": length, **how, "ngram": ngram}
        print(json.dumps(about | {"samples": texts}, indent=1))
        return
    for number, (sample, report) in enumerate(zip(batch, reports, strict=True), start=1):
        print(f"--- {number} of {samples}", flush=True)
        print((prompt or "") + sample.text, flush=True)
        if report:
            print(f"lm: {number}: {report}", file=sys.stderr, flush=True)


def next_(
    run: RunArgument,
    prompt: Annotated[
        str | None, typer.Option(help="text before the token, - for standard input; without it, the beginning of a document")
    ] = None,
    prompt_file: PromptFile = None,
    encoding: Encoding = "utf-8",
    top: Annotated[int, typer.Option(min=1, help="how many of the likeliest tokens")] = 10,
    unknown: Annotated[bool, typer.Option("--unknown", help="rank <unk> with the others, which is no word")] = False,
    as_json: AsJson = False,
    device: Device = "auto",
) -> None:
    """The distribution of the next token, P(v | prompt), as bars, with its entropy.

    [dim]lm next runs/obama-word-lstm --prompt "the students opened their" --top 10[/dim]
    """
    from recurrent_lm.lm.commands.surprise import bars

    prompt = _prompt(prompt, prompt_file, encoding)
    model = opened(run, device)
    if prompt is not None:
        say_unknown(model, prompt)
    distribution = lm.next_token(model, prompt)
    if as_json:
        tokens = [
            {"token": word, "id": i, "probability": p, "bits": bits} for word, p, bits, i in distribution.top(top, unknown)
        ]
        about = {"run": str(run), "prompt": prompt, "entropy_nats": distribution.entropy, "types": model.tokenizer.size}
        print(json.dumps(about | {"unknown": distribution.unknown, "top": tokens}, indent=1))
    else:
        bars(prompt, distribution, top, unknown)


def score(
    run: RunArgument,
    text: Annotated[
        str,
        typer.Argument(metavar="TEXT|FILE", show_default=False, help="a text, a file that holds it, or - for standard input"),
    ],
    html: Annotated[Path | None, typer.Option(help="write a page that shows each token's surprise, too")] = None,
    encoding: Annotated[str, typer.Option(help="how a file is encoded")] = "utf-8",
    as_json: AsJson = False,
    device: Device = "auto",
) -> None:
    """How surprising each token of a text is: -log P, coloured; the total in nats and in bits per byte.

    [dim]lm score runs/obama-word-lstm "Yes we can." --html surprise.html[/dim]
    """
    from recurrent_lm.lm.commands.surprise import as_dict, page, print_scored

    if html and html.exists():
        raise InputError(f"{html} exists already; name another file with --html")
    if html and not html.parent.is_dir():
        raise InputError(f"there is no folder {html.parent} for --html; make it first")
    name, is_file = text, _is_file(text)
    if not is_file and text.lower().endswith(".txt"):
        raise InputError(f"there is no file {shown(text)}; give one that is there, or a text")
    if not is_file and "/" in text and len(text.split()) == 1:
        print(f"lm: there is no file {shown(text)}; it is scored as a text", file=sys.stderr)
    if text == "-":
        text = decode(_standard_input("the text"), "standard input", encoding)
    elif is_file:
        text = read_text(Path(text), encoding)
    model = opened(run, device)
    scored = lm.score_text(model, text)
    if as_json:
        print(json.dumps({"run": str(run), **as_dict(scored)}, indent=1))
    else:
        print_scored(scored)
    if html:
        with replacing(html, "--html") as temporary:
            temporary.write_bytes(page(scored, str(run), name if is_file else "").encode())
        print(f"page: {html}", file=sys.stderr)


def eval_(
    run: RunArgument,
    corpus: Annotated[str, typer.Option(help="another text: a corpus's name, a file or a folder")] = "",
    split: Annotated[str, typer.Option(help="train, valid, test, or all")] = "test",
    rows: Annotated[int, typer.Option(help="parts of the text read side by side: faster, each part without its history")] = 1,
    warmup: Annotated[int, typer.Option(help="uncounted tokens read before each part, for its history")] = 0,
    dynamic: Annotated[bool, typer.Option("--dynamic", help="also keep learning while reading (Mikolov et al. 2010)")] = False,
    dynamic_lr: Annotated[
        float | None, typer.Option(help="its learning rate; fitted on the validation split if left out", show_default=False)
    ] = None,
    masks: Annotated[
        int, typer.Option(help="also the mean probability of so many dropout masks, one set for a whole text; 0 for none")
    ] = 0,
    mask_seed: Annotated[int, typer.Option(help="seed of these masks")] = 1,
    ngram: Annotated[int, typer.Option(help="order of the Kneser-Ney model beside it; 0 leaves it out")] = 5,
    interpolate: Annotated[
        bool, typer.Option("--interpolate", help="also mix both, with the weight fitted on the validation split")
    ] = False,
    encoding: Annotated[str, typer.Option(help="how the files of --corpus are encoded")] = "utf-8",
    trained_on: Annotated[
        str, typer.Option(metavar="PATH", help="where the run's own text is now, if it was moved and --corpus is another")
    ] = "",
    as_json: AsJson = False,
    device: Device = "auto",
) -> None:
    """How well a model predicts a text: loss, perplexity, bits per byte, beside an n-gram model.

    [dim]lm eval runs/obama-word-lstm --interpolate --dynamic[/dim]
    [dim]lm eval runs/obama-word-lstm --corpus trump --split all[/dim]
    """
    from recurrent_lm.lm.commands.display import evaluation_table

    how = lm.How(split, rows, warmup, dynamic, dynamic_lr, ngram, interpolate, masks, mask_seed)
    model = opened(run, device)
    other = lm.other_corpus(model, corpus, encoding) if corpus else None
    compared = lm.compare(model, how, other, lambda text: print(f"lm: {text}", file=sys.stderr), trained_on)
    if as_json:
        scores = [{"name": name, **score.as_dict()} for name, score in compared.scores]
        about = {"run": str(run), "corpus": compared.corpus, **vars(how), "types": model.tokenizer.size}
        print(json.dumps(about | {"scores": scores, "warnings": compared.warnings}, indent=1))
    else:
        evaluation_table(model, how, compared)


def opened(path: Path, device: str) -> "lm.Run":
    """The run's best model, with a word on stderr where its settings were edited."""
    from recurrent_lm.lm.runs.folder import edited

    run = lm.load(path, device=device)
    for note in edited(run.path, run.meta):
        print(f"lm: {note}", file=sys.stderr)
    return run


def _is_file(text: str) -> bool:
    try:
        return bool(text) and Path(text).exists()
    except (OSError, ValueError):  # too long, or with a NUL: no path
        return False


def say_unknown(model: "lm.Run", prompt: str) -> None:
    for symbol, mapped in model.tokenizer.unknown(prompt).items():
        print(f"lm: {shown(symbol)} is not in the vocabulary; it is read as {mapped}", file=sys.stderr)


def _prompt(prompt: str | None, file: Path | None, encoding: str) -> str | None:
    """The prompt, or the content of a file or standard input without final line ends, like $(cat FILE).

    Raises:
        InputError: if both are given, or there is no text.
    """
    if file is not None and prompt is not None:
        raise InputError("give either --prompt or --prompt-file, not both")
    if file is not None and str(file) != "-":
        raw = file.read_bytes() if file.is_fifo() else read_bytes(file)  # a pipe is read once here, and that suffices
        name, text = str(file), decode(raw, file, encoding)
    elif file is not None or prompt == "-":
        name, text = "standard input", decode(_standard_input("the prompt"), "standard input", encoding)
    else:
        return prompt
    text = text.rstrip("\r\n")
    if not text:
        raise InputError(f"{name} holds no prompt; give it some text, or leave the prompt out to begin as a document does")
    return text


def _standard_input(subject: str) -> bytes:
    if sys.stdin is None:
        raise InputError(f"standard input is closed, so {subject} cannot be read from it; give it as an argument or as a file")
    if sys.stdin.isatty():
        print(f"lm: type {subject}; Ctrl-D on a line of its own ends it", file=sys.stderr)
    try:
        return sys.stdin.buffer.read()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"{subject} cannot be read from standard input: {why}; give it as an argument or as a file") from None


def _counts(model: "lm.Run", order: int, place: str) -> "lm.NGram":
    """The n-gram model of the text that a run was trained on, in its tokens."""
    data = lm.trained_on(model.config, model.tokenizer, model.path, model.meta, place)
    return lm.NGram.fit(data.train.ids, model.tokenizer.size, order)


def _training_text(model: "lm.Run", place: str = "") -> "lm.TrainingText | None":
    """The words that the model was trained on; None, with a line on stderr, if the text is gone.

    Raises:
        InputError: if the text is not at the given ``place``.
    """
    from recurrent_lm.lm.text.data import open_moved

    config = model.config
    if place:
        corpus = lm.trained_on(config, model.tokenizer, model.path, model.meta, place).corpus
    else:
        try:
            corpus = open_moved(config.corpus, model.path)
        except InputError as error:
            print(f"lm: not compared with the training text: {error}", file=sys.stderr)
            return None
    pieces = corpus.splits()["train"]
    return lm.TrainingText((piece.text for piece in pieces), config.tokens.lower, config.tokens.split)
