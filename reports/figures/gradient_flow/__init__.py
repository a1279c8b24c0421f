"""Where the gradient of W_h comes from: the lecture's four paths, the T x T map, and norms against the lag."""

from recurrent_lm.reports.figures.gradient_flow import language, maps, networks, paths, slopes, theory
from recurrent_lm.reports.figures.gradient_flow.numbers import listings

__all__ = ["PLOTS", "listings"]

PLOTS = (paths.PLOT, maps.PLOT, networks.PLOT, theory.PLOT, slopes.PLOT, theory.GATES, language.CURVES, language.TRAINING)
