"""Where the gradient of W_h comes from: the lecture's four paths, the T x T map, and norms against the lag."""

from recurrent_lm.reports.figures.gradient_flow import beside_theory, language_models_over_lag, maps, networks, paths, slopes
from recurrent_lm.reports.figures.gradient_flow.numbers import listings

__all__ = ["PLOTS", "listings"]

PLOTS = (
    paths.PLOT,
    maps.PLOT,
    networks.PLOT,
    beside_theory.PLOT,
    slopes.PLOT,
    beside_theory.GATES,
    language_models_over_lag.CURVES,
    language_models_over_lag.TRAINING,
)
