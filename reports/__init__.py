"""Pages that show the numbers. The front door: ``figure``, a study's table as a picture with its caption."""

from reports.page import Figure, figure

__all__ = ["Figure", "figure"]
