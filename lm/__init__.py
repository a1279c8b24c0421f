"""The language model: text in, text out.

The front door of this room: ``train`` a model, ``load`` a run, ``generate`` text, ``evaluate`` a stream, and the settings
and parts that studies need. Names are imported when first used, so that ``lm --help`` does not pay for torch.
"""

from typing import TYPE_CHECKING

import recurrent_lm

if TYPE_CHECKING:
    from recurrent_lm.lm.base.console import say as say
    from recurrent_lm.lm.base.errors import Diverged as Diverged
    from recurrent_lm.lm.base.errors import InputError as InputError
    from recurrent_lm.lm.base.errors import Stopped as Stopped
    from recurrent_lm.lm.base.machine import check_memory as check_memory
    from recurrent_lm.lm.base.machine import describe_machine as describe_machine
    from recurrent_lm.lm.base.machine import out_of_memory as out_of_memory
    from recurrent_lm.lm.base.progress import Display as Display
    from recurrent_lm.lm.base.settings import Settings as Settings
    from recurrent_lm.lm.base.settings import expected as expected
    from recurrent_lm.lm.base.settings import setting as setting
    from recurrent_lm.lm.base.signals import ending_at_once as ending_at_once
    from recurrent_lm.lm.base.signals import handled as handled
    from recurrent_lm.lm.base.storage import check_writable as check_writable
    from recurrent_lm.lm.base.storage import digest as digest
    from recurrent_lm.lm.base.storage import intact as intact
    from recurrent_lm.lm.base.storage import lock as lock
    from recurrent_lm.lm.base.storage import replacing as replacing
    from recurrent_lm.lm.base.storage import sealed as sealed
    from recurrent_lm.lm.commands.cli import run_app as run_app
    from recurrent_lm.lm.config import BatchConfig as BatchConfig
    from recurrent_lm.lm.config import CorpusConfig as CorpusConfig
    from recurrent_lm.lm.config import MachineConfig as MachineConfig
    from recurrent_lm.lm.config import ModelConfig as ModelConfig
    from recurrent_lm.lm.config import RunConfig as RunConfig
    from recurrent_lm.lm.config import TokensConfig as TokensConfig
    from recurrent_lm.lm.config import TrainingConfig as TrainingConfig
    from recurrent_lm.lm.config import from_toml as from_toml
    from recurrent_lm.lm.config import preset_file as preset_file
    from recurrent_lm.lm.generation import Draws as Draws
    from recurrent_lm.lm.generation import generate as generate
    from recurrent_lm.lm.generation import generate_batch as generate_batch
    from recurrent_lm.lm.model import LanguageModel as LanguageModel
    from recurrent_lm.lm.page.document import model_page as model_page
    from recurrent_lm.lm.parameter_counts import parameter_table as parameter_table
    from recurrent_lm.lm.runs.folder import Run as Run
    from recurrent_lm.lm.runs.folder import load as load
    from recurrent_lm.lm.runs.folder import runs_in as runs_in
    from recurrent_lm.lm.runs.history import History as History
    from recurrent_lm.lm.runs.history import history as history
    from recurrent_lm.lm.scoring.compare import How as How
    from recurrent_lm.lm.scoring.compare import compare as compare
    from recurrent_lm.lm.scoring.compare import other_corpus as other_corpus
    from recurrent_lm.lm.scoring.copying import TrainingText as TrainingText
    from recurrent_lm.lm.scoring.evaluate import evaluate as evaluate
    from recurrent_lm.lm.scoring.next_token import next_token as next_token
    from recurrent_lm.lm.scoring.next_token import score_text as score_text
    from recurrent_lm.lm.scoring.ngram import NGram as NGram
    from recurrent_lm.lm.text.batches import Batches as Batches
    from recurrent_lm.lm.text.batches import Stream as Stream
    from recurrent_lm.lm.text.corpora import Corpus as Corpus
    from recurrent_lm.lm.text.data import Data as Data
    from recurrent_lm.lm.text.data import prepare as prepare
    from recurrent_lm.lm.text.data import trained_on as trained_on
    from recurrent_lm.lm.training.cuda_graph import Graph as Graph
    from recurrent_lm.lm.training.loop import Training as Training
    from recurrent_lm.lm.training.start import new_training as new_training
    from recurrent_lm.lm.training.start import train as train

__all__, __getattr__, __dir__ = recurrent_lm.front_door(__name__, __file__)
