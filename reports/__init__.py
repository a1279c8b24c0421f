"""Pages that show the numbers.

The front door: ``build``, tables to a folder of pages with an index, and ``figure``, a table as a picture with its caption.
"""

from reports.drawing import Figure, figure
from reports.folder import Built, build

__all__ = ["Built", "Figure", "build", "figure"]
