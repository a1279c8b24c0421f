"""Where the gradient of W_h comes from: the lecture's four paths, the T x T map, and norms against the lag."""

from reports.figures.gradient_flow import language, maps, networks, paths, theory

PLOTS = (paths.PLOT, maps.PLOT, networks.PLOT, theory.PLOT, theory.GATES, language.CURVES, language.TRAINING)
