"""Studies: questions about recurrent language models that measurements answer.

A study is a folder with parameters and measuring, ``claims`` that a table decides, and ``figures`` that draw it. Calling its
frozen dataclass returns a tidy table, one row for each measurement. The front door: ``STUDIES`` (name to question), ``load``,
``save``, ``verdicts`` (a table of ``Claim``s) and ``select`` (by key), ``summary`` (medians, rates, comparisons), ``growth``
(exponents) and ``changes`` (between two tables of a study); ``plots``, ``answer``, ``finding``, ``listings``, ``passages`` and
``subject`` for pages, with the style they share; ``fill_quality`` and ``fill_ablation`` (the plans of two tables of trainings),
``quality_table`` and ``ablation_table``; and the functions by which commands end, write files and print.
"""

from typing import TYPE_CHECKING

import recurrent_lm

if TYPE_CHECKING:
    from recurrent_lm.lm import InputError as InputError
    from recurrent_lm.lm import check_writable as check_writable
    from recurrent_lm.lm import replacing as replacing
    from recurrent_lm.lm import run_app as run_app
    from recurrent_lm.lm import say as say
    from recurrent_lm.studies.engine.answers import Answer as Answer
    from recurrent_lm.studies.engine.answers import answer as answer
    from recurrent_lm.studies.engine.answers import finding as finding
    from recurrent_lm.studies.engine.catalogue import STUDIES as STUDIES
    from recurrent_lm.studies.engine.claims import Claim as Claim
    from recurrent_lm.studies.engine.claims import select as select
    from recurrent_lm.studies.engine.claims import verdicts as verdicts
    from recurrent_lm.studies.engine.study import changes as changes
    from recurrent_lm.studies.engine.study import growth as growth
    from recurrent_lm.studies.engine.study import listing as listing
    from recurrent_lm.studies.engine.study import summary as summary
    from recurrent_lm.studies.engine.tables import failures as failures
    from recurrent_lm.studies.engine.tables import load as load
    from recurrent_lm.studies.engine.tables import save as save
    from recurrent_lm.studies.gradient_lag.profile import lag_profile as lag_profile
    from recurrent_lm.studies.plotting.plots import Listing as Listing
    from recurrent_lm.studies.plotting.plots import Passage as Passage
    from recurrent_lm.studies.plotting.plots import Plot as Plot
    from recurrent_lm.studies.plotting.plots import listings as listings
    from recurrent_lm.studies.plotting.plots import passages as passages
    from recurrent_lm.studies.plotting.plots import plots as plots
    from recurrent_lm.studies.plotting.plots import subject as subject
    from recurrent_lm.studies.plotting.style import COLOURS as COLOURS
    from recurrent_lm.studies.plotting.style import LETTERS as LETTERS
    from recurrent_lm.studies.plotting.style import NARROW as NARROW
    from recurrent_lm.studies.plotting.style import WIDE as WIDE
    from recurrent_lm.studies.plotting.style import boxes_for_glyphs as boxes_for_glyphs
    from recurrent_lm.studies.plotting.style import headline as headline
    from recurrent_lm.studies.plotting.style import printable as printable
    from recurrent_lm.studies.quality import ablation_table as ablation_table
    from recurrent_lm.studies.quality import fill_ablation as fill_ablation
    from recurrent_lm.studies.quality import fill_quality as fill_quality
    from recurrent_lm.studies.quality import quality_table as quality_table

__all__, __getattr__, __dir__ = recurrent_lm.front_door(__name__, __file__)
