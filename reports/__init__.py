"""Pages that show the numbers.

The front door: ``build``, tables to a folder of pages with an index, and ``figure``, a table as a picture with its caption.
"""

from typing import TYPE_CHECKING

import recurrent_lm

if TYPE_CHECKING:
    from recurrent_lm.reports.drawing import Figure as Figure
    from recurrent_lm.reports.drawing import figure as figure
    from recurrent_lm.reports.site import Built as Built
    from recurrent_lm.reports.site import build as build

__all__, __getattr__, __dir__ = recurrent_lm.front_door(__name__, __file__)
