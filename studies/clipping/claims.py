"""Claims of the clipping study: 2, 3, 11 and 12 about gradients, and two related ones."""

import math
from typing import TYPE_CHECKING, Any

from recurrent_lm.studies.clipping.cliff import UNSTABLE, bifurcations, ridge
from recurrent_lm.studies.clipping.overflow_claims import overflow
from recurrent_lm.studies.clipping.table import ONE, ROUNDING, SLIDE, trainings
from recurrent_lm.studies.engine.claims import Claim
from recurrent_lm.studies.engine.statistics import UNDEFINED, decided, mean, ratio

if TYPE_CHECKING:
    import pandas as pd

FIG6, FIG3 = "Pascanu et al. 2013, Fig. 6", "Pascanu et al. 2013, Fig. 3"
RANGE = (0.5, 10.0)  # of thresholds, in mean norms
CLOSE = 1.02  # losses within 2%
GIVEN = {5.0: ("-2.6123", "-661.7"), 6.0: ("-3.2348", "-2.57e+06")}  # b* and dE/db there
FORK = ("-2.6556", "-2.3444")  # bifurcations at w = 5


def claims(table: "pd.DataFrame") -> list[Claim]:
    """The cliff and its slope; the bifurcations; thresholds that train; what keeps the gradient's direction; norms that float32
    does not hold."""

    rows = [*_cliff(table[table["part"] == "cliff"]), *_range(table), *_kinds(table[table["part"] == "kinds"])]
    if "overflow" in table.attrs["parameters"].get("parts", ()):  # a part that older tables do not know
        rows += overflow(table[table["part"] == "overflow"])
    return rows


def _cliff(part: "pd.DataFrame") -> list[Claim]:
    probes = part[part["quantity"] == "dE/db"].set_index(["w", "kind"])
    place, slope = probes["b"].to_dict(), probes["value"].to_dict()
    return [*_place(place, slope), *_formula(slope), _miss(slope), *_forks(part[part["quantity"] == "fixed points"])]


def _place(place: dict[Any, float], slope: dict[Any, float]) -> list[Claim]:
    rows = []
    for w, (b, steep) in GIVEN.items():
        setting = f"w = {w:g}, sigmoid, x_0 = 0.5, 50 steps"
        facts, measured, holds = {"w": w}, "", False
        if (w, "ridge") in slope:
            digits = len(steep.partition("e")[0].strip("-").replace(".", ""))
            measured_place = f"{place[w, 'ridge']:.4f}", f"{slope[w, 'ridge']:.{digits}g}"
            measured, holds = f"b* = {measured_place[0]}, dE/db = {measured_place[1]}", measured_place == (b, steep)
            if not math.isfinite(place[w, "ridge"] + slope[w, "ridge"]):
                measured = UNDEFINED
        text = "on the line b* = 0.5 - s(0.5) w the error is a cliff"
        digits_of = f"b* = {b}, dE/db = {steep}, all digits"
        rows.append(Claim("cliff", text, FIG6, setting, digits_of, measured, holds, "", facts))
        measured = ""
        if {(w, "steepest"), (w, "ridge")} <= slope.keys():
            off = place[w, "steepest"] - place[w, "ridge"]
            times = ratio(slope[w, "steepest"], slope[w, "ridge"])
            measured = f"{place[w, 'steepest']:.4f}, {off:+.1e} from b*, {times:.1f} times as steep as there"
            measured = measured if math.isfinite(off + times) else UNDEFINED
            holds = f"{place[w, 'steepest']:.4f}" == b
        rows.append(Claim("steepest", "the steepest b of a scan is b*", FIG6, setting, f"{b}, all digits", measured, holds))
    return rows


def _formula(slope: dict[Any, float]) -> list[Claim]:
    """The formula against forward mode, and forward mode against 60 digits, over all w that were looked at."""
    rows = []
    for kind, text, tolerance in (
        ("formula", "dE/db on the ridge is -0.03644 (a^50 - 1) / (a - 1), a = 0.2350 w", 1e-6),
        ("decimals", "dE/db on the ridge by forward mode in float64 is that of 60 decimal digits", 1e-6),
    ):
        probed = [(w, value) for (w, k), value in slope.items() if k == kind and (w, "ridge") in slope]
        errors = {w: abs(ratio(slope[w, "ridge"], value) - 1) for w, value in probed}
        worst = math.nan if any(map(math.isnan, errors.values())) else max(errors.values(), default=math.nan)
        setting = f"w = {', '.join(f'{w:g}' for w in errors)}" if errors else "w > 4.255"
        measured = f"{worst:.1e}; a > 1 from w = {UNSTABLE:.3f} on" if errors else ""
        measured = UNDEFINED if errors and math.isnan(worst) else measured
        rows.append(Claim(kind, text, FIG6, setting, f"relative error <= {tolerance:g}", measured, worst <= tolerance))
    return rows


def _miss(slope: dict[Any, float]) -> Claim:
    claim, setting = ("four_digits", "b* to four digits misses the cliff"), "w = 6"
    measured, holds = "", False
    if {(6.0, "four digits"), (6.0, "ridge")} <= slope.keys():
        missed, exact = slope[6.0, "four digits"], slope[6.0, "ridge"]
        measured, holds = (
            f"dE/db = {missed:.3g} at {round(float(ridge(6.0)), 4)}, {exact:.3g} at b*",
            abs(missed) < 1e-3 * abs(exact),
        )
        if not math.isfinite(missed + exact) or not exact:
            measured = UNDEFINED
    return Claim(*claim, FIG6, setting, "less than a thousandth of the slope at b*", measured, holds)


def _forks(part: "pd.DataFrame") -> list[Claim]:
    rows = []
    for kind, given, exact, wanted in zip(("lower", "upper"), FORK, bifurcations(5.0), ([1, 3], [3, 1]), strict=True):
        counted = part[part["kind"] == kind].sort_values("b")["value"].tolist()
        told = ", ".join(f"{count:g}" for count in counted)
        measured = f"b = {exact:.4f}; fixed points just below and above: {told}" if counted else ""
        threshold = f"b = {given}, {wanted[0]} fixed point{'s' * (wanted[0] > 1)} below and {wanted[1]} above"
        if not all(map(math.isfinite, counted)):
            measured = UNDEFINED
        holds = f"{exact:.4f}" == given and counted == wanted
        text = "fixed points appear or vanish where 5 s'(x) = 1"
        rows.append(Claim("forks", text, FIG3, f"w = 5, {kind}", threshold, measured, holds))
    return rows


def _range(table: "pd.DataFrame") -> list[Claim]:
    """Claim 11, a row a corpus and rate: with each seed, the worst final loss over the range against the best.

    Where a training diverged there is no mean ratio: it fails if no seed is within, otherwise the seeds do not agree.
    """
    text = "any threshold of 0.5 to 10 times the mean norm trains to the same final loss"
    claim = "range", text, f"Pascanu et al. 2013, Section 3.2; {SLIDE}"
    threshold = "a seed's worst within 2% of its best, by a 95% interval over seeds"
    if not (table["part"] == "training").any():
        return [Claim(*claim, "all", threshold)]
    runs = trainings(table)
    rows = []
    for (corpus, rate), here in runs.groupby(["corpus", "rate"], sort=False):
        group = here[here["multiple"].between(*RANGE)]
        if group.empty:
            continue
        name = f"{corpus}, learning rate {rate:g}"
        setting = f"{name}, {group['multiple'].nunique()} thresholds"
        if not (group["loss"] > 0).all():  # nan, too; infinity stands for a training that diverged
            rows.append(Claim(*claim, setting, threshold, UNDEFINED, facts={"of": name, "range": UNDEFINED}))
            continue
        seeds = group.groupby("seed")["loss"].agg(["min", "max"])
        ratios = seeds["max"] / seeds["min"].where(seeds["min"] < math.inf, 1.0)
        worst = group.sort_values("loss").iloc[-1]
        some = f"{worst['multiple']:g} times the mean norm"
        many = f"{len(seeds)} seeds" if len(seeds) > 1 else "one seed"
        reach = f"{_percent(ratios.min())} to {_percent(ratios.max())}"
        measured = f"{reach} over {many}, worst at {some}"
        middle = mean(ratios)
        if math.isfinite(middle.low):
            measured += f", mean {_percent(middle.value)} [{_percent(middle.low)}, {_percent(middle.high)}]"
        verdict = decided(middle, high=CLOSE)
        if len(seeds) > 1 and math.isinf(ratios.max()) and (ratios > CLOSE).all():
            verdict = "fails"
        why = _of_range(here) if verdict == "fails" or len(seeds) > 1 else ONE
        rows.append(Claim(*claim, setting, threshold, measured, verdict, why, {"of": name, "range": reach}))
    return rows


def _percent(times: float) -> str:
    return f"{100 * (times - 1):.1f}%" if math.isfinite(times) else "diverged"


def _kinds(part: "pd.DataFrame") -> list[Claim]:
    example = part[part["kind"] == "example"].set_index("quantity")["value"].to_dict()
    setting = "(10, -9.5, -0.4)"
    complete = {"sum", "temporal"} <= example.keys()
    measured = f"{example['sum']:.4g}, clipped {example['temporal']:.4g}" if complete else ""
    if complete and not math.isfinite(example["sum"] + example["temporal"]):
        measured = UNDEFINED
    close = complete and abs(example["sum"] - 0.1) <= ROUNDING and abs(example["temporal"] + 0.4) <= ROUNDING
    text = "clipping temporal components can point uphill"
    threshold = "the sum is 0.1, clipped at 1 it is -0.4"
    rows = [Claim("example", text, f"Mikolov 2012; {SLIDE}", setting, threshold, measured, close)]
    errors = part[part["quantity"] == "sum error"]["value"]
    measured = f"{errors.max():.1e} in {len(errors)} steps" if len(errors) else ""
    measured = UNDEFINED if errors.isna().any() else measured
    text = "the parts over steps sum to the gradient of the recurrence"
    setting, threshold, right = "all weights of the layer", "relative error <= 1e-12 in float64", bool(errors.max() <= ROUNDING)
    rows.append(Claim("sums", text, "lecture, slide BPTT", setting, threshold, measured, right))
    cosines = part[part["quantity"] == "cosine"]
    why = (
        "a turned gradient takes large parts that nearly cancel, as in (10, -9.5, -0.4); those of a batch's many rows and "
        "steps never cancelled as closely here"
    )
    for kind, key, text, threshold in (
        ("norm", "norm_keeps", "clipping by norm keeps the gradient's direction", f"cosine >= 1 - {ROUNDING:g} at every step"),
        ("value", "value_turns", "clipping by value does not keep it", f"a cosine < 1 - {ROUNDING:g}"),
        ("value", "value_uphill", "clipping by value never points uphill", "cosine > 0 at every step"),
        ("temporal", "temporal_uphill", "clipping temporal components points uphill in this training", "a cosine < 0"),
        ("hidden", "hidden_uphill", "clipping the hidden gradient points uphill in this training", "a cosine < 0"),
    ):
        values = cosines[cosines["kind"] == kind]["value"]
        least = float(values.min(skipna=False)) if len(values) else math.nan
        uphill = int((values < 0).sum())
        bounds = {"norm_keeps": least >= 1 - ROUNDING, "value_turns": least < 1 - ROUNDING, "value_uphill": least > 0}
        measured = f"least cosine {least:.3g}"
        if key not in bounds:
            measured = f"{uphill} of {len(values)}, {measured}"
        if not values.between(-1 - ROUNDING, 1 + ROUNDING).all():  # no cosine
            measured = UNDEFINED
        holds, likely = bounds.get(key, uphill > 0), why if kind == "temporal" else ""
        setting, measured = "all steps and thresholds", measured if len(values) else ""
        rows.append(Claim(key, text, SLIDE, setting, threshold, measured, holds, likely))
    return rows


def _of_range(here: "pd.DataFrame") -> str:
    """Either a threshold does not hold a rate at which training diverges, or the lowest slows it down."""
    inside = here[here["multiple"].between(*RANGE)]
    lost = inside[inside["diverged"] == 1]
    free = here[here["multiple"] == math.inf]
    if len(lost):
        kept = inside[~inside["multiple"].isin(lost["multiple"])]["multiple"]
        held = (
            f"thresholds up to {kept.max():g} times the mean norm hold it, higher ones do not"
            if len(kept)
            else "no threshold holds it"
        )
        return (
            f"the rate is too high for this model: without clipping {free['diverged'].sum():.0f} of {len(free)} trainings "
            f"diverge; {held}, since a step may be as long as rate times threshold"
        )
    worst = inside.sort_values("loss").iloc[-1]
    if worst["multiple"] > inside["multiple"].min():
        return ""
    same = inside[inside["multiple"] == worst["multiple"]]["clipped"].mean()
    return (
        f"the lowest threshold shortens {same:.0%} of the steps, so that as many updates lead less far: the training is slower "
        "and likely not at its end"
    )
