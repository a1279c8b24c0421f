"""The language model: text in, text out.

The front door of this room: ``load`` a run, ``generate`` text, ``evaluate`` a stream, and the settings and parts that
studies need. Names are imported when first used, so that ``lm --help`` does not pay for torch.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

_ROOMS = {
    "InputError": "errors",
    "Diverged": "errors",
    "Stopped": "errors",
    "Run": "runs",
    "load": "runs",
    "generate": "generate",
    "generate_batch": "generate",
    "Draws": "generate",
    "next_token": "probe",
    "score_text": "probe",
    "evaluate": "evaluate",
    "LanguageModel": "model",
    "Corpus": "corpora",
    "Data": "data",
    "Stream": "streams",
    "run_app": "cli",
    "BatchConfig": "config",
    "ModelConfig": "config",
    "RunConfig": "config",
    "TrainingConfig": "config",
    "MachineConfig": "config",
    "prepare": "data",
    "trained_on": "data",
    "Batches": "streams",
    "Training": "train",
    "Graph": "graph",
    "new_training": "launch",
    "describe_machine": "machine",
    "parameter_table": "params",
    "How": "evaluation",
    "compare": "evaluation",
    "other_corpus": "evaluation",
    "TrainingText": "copying",
    "NGram": "ngram",
    "handled": "signals",
}
__all__ = sorted(_ROOMS)

if TYPE_CHECKING:
    from lm.cli import run_app as run_app
    from lm.config import BatchConfig as BatchConfig
    from lm.config import MachineConfig as MachineConfig
    from lm.config import ModelConfig as ModelConfig
    from lm.config import RunConfig as RunConfig
    from lm.config import TrainingConfig as TrainingConfig
    from lm.copying import TrainingText as TrainingText
    from lm.corpora import Corpus as Corpus
    from lm.data import Data as Data
    from lm.data import prepare as prepare
    from lm.data import trained_on as trained_on
    from lm.errors import Diverged as Diverged
    from lm.errors import InputError as InputError
    from lm.errors import Stopped as Stopped
    from lm.evaluate import evaluate as evaluate
    from lm.evaluation import How as How
    from lm.evaluation import compare as compare
    from lm.evaluation import other_corpus as other_corpus
    from lm.generate import Draws as Draws
    from lm.generate import generate as generate
    from lm.generate import generate_batch as generate_batch
    from lm.graph import Graph as Graph
    from lm.launch import new_training as new_training
    from lm.machine import describe_machine as describe_machine
    from lm.model import LanguageModel as LanguageModel
    from lm.ngram import NGram as NGram
    from lm.params import parameter_table as parameter_table
    from lm.probe import next_token as next_token
    from lm.probe import score_text as score_text
    from lm.runs import Run as Run
    from lm.runs import load as load
    from lm.signals import handled as handled
    from lm.streams import Batches as Batches
    from lm.streams import Stream as Stream
    from lm.train import Training as Training


class _Door(ModuleType):
    """Looks names up when they are first used. A function keeps its name even where its file has the same one."""

    def __getattr__(self, name: str) -> Any:
        if name not in _ROOMS:
            raise AttributeError(f"module 'lm' has no attribute {name!r}")
        value = getattr(import_module(f"lm.{_ROOMS[name]}"), name)
        self.__dict__[name] = value
        return value

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _ROOMS and isinstance(value, ModuleType)):  # the import system announcing a submodule
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Door
