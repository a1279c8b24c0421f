"""Small models of every kind without a training, their pages, and a browser to open them in."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import devtools
import pytest
import torch

from recurrent_lm.lm.config import RunConfig
from recurrent_lm.lm.model import LanguageModel
from recurrent_lm.lm.page import document
from recurrent_lm.lm.runs.folder import Run
from recurrent_lm.lm.text.tokens import build

MORE = "\n\n“Yes,” we can—can't we?  100,000.5 times\n\n"


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[devtools.Browser]:
    """One browser for all of these tests."""
    if devtools.program() is None:
        pytest.skip(f"there is no browser to run pages in; install one of {', '.join(devtools.BROWSERS)}")
    browser = devtools.Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture(scope="session")
def make_run(make_text: Callable[..., str]) -> Callable[..., Run]:
    """``make_run(kind, **settings)``: a run with weights drawn at random, large enough that its states move."""

    def make(kind: str, tokenizer: Any = None, **settings: Any) -> Run:
        config = RunConfig().replace(**{"kind": kind, "hidden_size": 12, "source": "speech", **settings})
        tokenizer = tokenizer or build([make_text(3000) + MORE * 2], config.tokens)
        torch.manual_seed(3)
        model = LanguageModel(tokenizer.size, config.model)
        with torch.no_grad():
            for weight in model.parameters():
                weight.uniform_(-0.7, 0.7)
        return Run(Path("runs/speech"), config, tokenizer, model.eval(), {})

    return make


@pytest.fixture(scope="session")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``page_file(run, ...)`` writes a run's page, with the arguments of ``model_page``."""
    folder = tmp_path_factory.mktemp("pages")

    def write(run: Run, data: Any = None, **how: Any) -> Path:
        path = folder / f"{len(list(folder.iterdir()))}.html"
        path.write_text(document.model_page(run, data, **how).html, encoding="utf-8")
        return path

    return write
