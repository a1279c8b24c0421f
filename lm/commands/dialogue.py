"""``lm ask``: a model is loaded once, then asked line by line."""

import sys
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from recurrent_lm.lm.base.errors import InputError
from recurrent_lm.lm.base.settings import shown
from recurrent_lm.lm.commands.ask import opened, say_unknown
from recurrent_lm.lm.commands.surprise import bars, print_scored
from recurrent_lm.lm.generation import Draws, generate
from recurrent_lm.lm.runs.folder import Run
from recurrent_lm.lm.scoring.next_token import next_token, score_text

HELP = """\
TEXT                shows what may come next: P(v | TEXT)
an empty line       lets the model write on from there; again, and it goes on
/write TEXT         lets it write on from TEXT
/score TEXT         how surprising each token of TEXT is; without TEXT, of the text so far
/temperature 0.8    sets how it draws; likewise /length, /top-k, /top-p, /no-repeat-ngram, /seed (none: fresh draws)
/top 10             how many tokens are shown; /unknown shows or leaves out <unk>
/help, /quit        this list; the end (or Ctrl-D). Ctrl-C stops a text"""
NONE = ("none", "off")


def talk(run: Path, device: str) -> None:
    """Load the model, then answer each line of standard input until it ends."""
    model = opened(run, device)
    with suppress(ImportError):  # Python can be built without it; then there is no history
        import readline  # noqa: F401
    dialogue = Dialogue(model)
    print(model)
    print("Type the beginning of a sentence; an empty line lets the model write on, /help lists the rest, Ctrl-D ends.")
    while dialogue.goes_on:
        try:
            dialogue.answer(input("> " if sys.stdin.isatty() else ""))
        except InputError as error:
            print(f"lm: {error}", file=sys.stderr)
        except KeyboardInterrupt:
            print()
        except EOFError:
            break
        sys.stdout.flush()


class Dialogue:
    """What was typed last, how tokens are drawn, and what each line does."""

    def __init__(self, run: Run) -> None:
        self.run, self.draws = run, Draws(length=60)
        self.text: str | None = None  # the beginning of a document
        self.top, self.unknown = 10, False
        self.goes_on = True

    def answer(self, line: str) -> None:
        """Do what a line asks for.

        Raises:
            InputError: for a command that is none, or a value out of range.
        """
        if not line.strip():
            self.write()
        elif line.startswith("/"):
            name, _, rest = line[1:].partition(" ")
            self.command(name, rest.strip())
        else:
            self.next(line)

    def command(self, name: str, rest: str) -> None:
        field = name.replace("-", "_")
        if name == "quit":
            self.goes_on = False
        elif name == "help":
            print(HELP)
        elif name == "write":
            self.text = rest or self.text
            self.write()
        elif name == "score":
            print_scored(score_text(self.run, rest or self.text or ""))
        elif name == "unknown":
            self.unknown = not self.unknown
            print(f"<unk> is {'shown' if self.unknown else 'left out'}")
        elif name == "top":
            top = int(_number(name, rest, int))
            if top < 1:
                raise InputError(f"/top must be at least 1, not {top}")
            self.top = top
        elif field in {f.name for f in fields(Draws)} - {"stop"}:
            whole = field not in ("temperature", "top_p")
            value: Any = None if field == "seed" and rest in NONE else _number(name, rest, int if whole else float)
            try:
                self.draws = replace(self.draws, **{field: value})
            except InputError as error:
                raise InputError(str(error).replace("--", "/")) from None
        else:
            raise InputError(f"there is no command /{shown(name)[1:-1]}; /help lists them")

    def next(self, text: str) -> None:
        """The distribution of the token behind a text."""
        say_unknown(self.run, text)
        found = next_token(self.run, text)
        self.text = text
        bars(text, found, self.top, self.unknown, "/unknown")

    def write(self) -> None:
        """Go on with the text, which grows by what is written; Ctrl-C keeps what there is by then."""
        draws = {f.name: getattr(self.draws, f.name) for f in fields(Draws)}
        pieces = generate(self.run, self.text, **draws)
        text = self.text or ""
        print(text, end="", flush=True)
        try:
            for piece in pieces:
                print(piece, end="", flush=True)
                text += piece
        except KeyboardInterrupt:
            pass
        print()
        self.text = text or None


def _number(name: str, text: str, kind: type[int] | type[float]) -> float:
    try:
        return kind(text)
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise InputError(f"/{name} needs {what}, such as /{name} 1, not {shown(text)}") from None
