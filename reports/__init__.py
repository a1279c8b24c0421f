"""Pages that show the numbers.

The front door: ``build``, tables to a folder of pages with an index, and ``figure``, a table as a picture with its caption.
"""

from recurrent_lm.reports.drawing import Figure, figure
from recurrent_lm.reports.site import Built, build

if __name__ != "recurrent_lm.reports":
    raise ImportError("this folder is the package recurrent_lm.reports: write `from recurrent_lm import reports`")

__all__ = ["Built", "Figure", "build", "figure"]
