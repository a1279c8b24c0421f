"""What the table of parallel decides: iterations follow the Lyapunov exponent, and what they would cost on a GPU."""

import math
from collections.abc import Callable

import numpy as np
import pandas as pd

from recurrent_lm.studies.engine.claims import Claim
from recurrent_lm.studies.engine.statistics import UNDEFINED, decided, rank_correlation

DEER = "Lim et al. 2024 (DEER)"
ELK = "Gonzalez et al. 2024 (quasi-DEER, ELK)"
PREDICTABLE = "Gonzalez et al. 2025, arXiv 2508.16817"
LINEAR = "rnn-identity"  # its step is linear in h: Newton is exact, so its iterations follow nothing
VANISHING = -0.2  # nats a step
FLAT, RANK = 1.5, 0.9
TRAINED = (7, 12)  # iterations of trained models
SAFE = 10  # times the tolerance: the error that the stopping rule may leave
LOOK = ["part", "corpus", "cell", "scale", "seed", "epoch", "layer"]  # a network, or a layer of a model at a look
UNSOLVED = ("overflow", "rounding", "limit")
PAID = 1_024  # steps T of the claims on cost
CHAOS = (
    "where gradients explode, rounding alone moves a trajectory: states may follow the equations to the last digit at every "
    "step and yet be far from those of the loop"
)


def claims(table: "pd.DataFrame") -> list[Claim]:
    """Newton is exact where it should be, follows the exponent, solves trained models quickly, and pays or not."""
    return [
        *_checks(table),
        *_lengths(table),
        *_ranks(table),
        *_trained(table),
        *_ways(table),
        *_stopping(table),
        *_pays(table),
    ]


def iterations_of(table: "pd.DataFrame", way: str = "full", dtype: str = "float64") -> "pd.DataFrame":
    """Iterations of networks and models, a row for each of ``LOOK``, window and T.

    Returns:
        Columns of these keys, iterations, stopped, error, reason, exponent, decay and known. Infinite iterations are a sequence
        that Newton did not solve; sequences whose own states overflow are left out; ``known`` is False where a number does not
        exist. A missing scale is -1.
    """
    rows = table[table["part"].isin(["random", "language"])].fillna({"scale": -1.0})
    rows.attrs = {}  # each step below would get a copy
    of = rows[(rows["way"] == way) & (rows["dtype"] == dtype) & (rows["reason"] != "network")]
    keys = [*LOOK, "window", "steps"]
    wide = of.groupby([*keys, "quantity"])["value"].first().unstack().reindex(columns=["iterations", "stopped", "error"])
    reasons = of[of["quantity"] == "iterations"].groupby(keys)["reason"].first()
    wide = wide.join(reasons).reset_index()
    for name, by in (("exponent", [*LOOK, "window"]), ("decay", LOOK)):
        values = rows[rows["quantity"] == name].groupby(by)["value"].first().rename(name)
        wide = wide.join(values, on=by)
    numbers = wide["iterations"]
    counted = (numbers >= 1) & (numbers < 1e9) & (numbers % 1 == 0)
    unsolved = (numbers == math.inf) & wide["reason"].isin(UNSOLVED)
    return wide.assign(known=(counted | unsolved) & np.isfinite(wide["exponent"]))


def longest(rows: "pd.DataFrame") -> "pd.DataFrame":
    """The rows of each part's largest T."""
    return rows[rows["steps"] == rows.groupby("part")["steps"].transform("max")]


def first_cell(rows: "pd.DataFrame") -> str:
    """The kind of random networks that stands for all: tanh where it was measured."""
    cells = [cell for cell in dict.fromkeys(rows.loc[rows["part"] == "random", "cell"]) if cell != LINEAR]
    return "rnn-tanh" if "rnn-tanh" in cells else cells[0] if cells else ""


def trained(rows: "pd.DataFrame") -> "pd.DataFrame":
    """The rows of language models at their last look."""
    models = rows[rows["part"] == "language"]
    return models[models["epoch"] == models.groupby(["corpus", "cell", "seed"])["epoch"].transform("max")]


def shown(iterations: float) -> str:
    return f"{iterations:,.0f}" if math.isfinite(iterations) else "never solved"


def _each(right: "pd.Series[bool]") -> str:
    return "holds" if right.all() else "fails"


def _checks(table: "pd.DataFrame") -> list[Claim]:
    """The scan is the loop, the states are the sequential ones, the gradients are those of BPTT; linear cells need one step."""
    rows = []
    for key, quantity, text, source, most in (
        (
            "scan",
            "scan_error",
            "an associative scan of pairs (J, b) solves the linear recurrence as a loop does",
            DEER,
            1e-9,
        ),
        ("states", "state_error", "the parallel states are the sequential ones", DEER, 1e-9),
        (
            "gradients",
            "gradient_error",
            "the gradients of the parallel solution are those of BPTT",
            DEER,
            1e-6,
        ),
    ):
        errors = table[(table["part"] == "checks") & (table["quantity"] == quantity)]["value"]
        setting, threshold = f"{len(errors)} kinds of cells, random", f"relative error <= {most:g} in float64"
        if errors.empty:
            rows.append(Claim(key, text, source, "every cell", threshold))
            continue
        known = bool((errors.between(0, math.inf, inclusive="left")).all())
        worst = float(errors.max())
        rows.append(
            Claim(key, text, source, setting, threshold, f"{worst:.1e} at the most" if known else UNDEFINED, worst <= most)
        )
    linear = iterations_of(table)
    linear = linear[(linear["cell"] == LINEAR) & ~(linear["exponent"] >= 0)]
    claim = "linear", "a cell that is linear in h is solved in one iteration", DEER
    setting, threshold = f"{len(linear)} sequences of linear networks, exponents below 0", "exactly 1"
    if linear.empty:
        return [*rows, Claim(*claim, "linear networks", threshold)]
    once = linear["iterations"] == 1
    measured = f"1 iteration for {once.sum()} of {len(linear)}" if linear["known"].all() else UNDEFINED
    return [*rows, Claim(*claim, setting, threshold, measured, _each(once), "rounding, if its states are large")]


def _lengths(table: "pd.DataFrame") -> list[Claim]:
    """How iterations change with T, by cell: hardly where gradients vanish, growing where they explode."""
    random = iterations_of(table)
    random = random[(random["part"] == "random") & (random["cell"] != LINEAR)]
    short, long = random["steps"].min(), random["steps"].max()
    both = random[random["steps"] == short].merge(random[random["steps"] == long], on=LOOK, suffixes=("_short", "_long"))
    flat = "where gradients vanish, iterations hardly grow with T"
    grows = "where gradients explode, iterations grow with T"
    rows = []
    for key, text, inside, threshold in (
        ("flat", flat, both["exponent_long"] < VANISHING, f"at most {FLAT:g} times as many at T = {long:,} as at {short:,}"),
        ("grows", grows, both["exponent_long"] > 0, f"more at T = {long:,} than at {short:,}, in every network"),
    ):
        bound = f"exponent {'below ' if key == 'flat' else 'above '}{VANISHING if key == 'flat' else 0:g}"
        seen = both[inside & both["known_short"] & both["known_long"] & np.isfinite(both["iterations_short"])]
        undefined = set(both[~(both["known_short"] & both["known_long"])]["cell"])
        for cell in dict.fromkeys(both["cell"]):
            here = seen[seen["cell"] == cell]
            facts = {"cell": cell, "short": short, "long": long}
            setting = f"{cell}, {len(here)} random networks, {bound}"
            if here.empty and cell not in undefined:
                continue
            measured = UNDEFINED if cell in undefined else _from_to(here)
            times = here["iterations_long"] / here["iterations_short"]
            verdict = _each(times <= FLAT if key == "flat" else times > 1)
            rows.append(Claim(key, text, PREDICTABLE, setting, threshold, measured, verdict, _why(key, here, times), facts))
        if key not in {claim.key for claim in rows}:
            rows.append(Claim(key, text, PREDICTABLE, f"random networks, {bound}", threshold.replace("nan", "-")))
    return rows


def _from_to(rows: "pd.DataFrame") -> str:
    short, long = rows["iterations_short"], rows["iterations_long"]
    never = int(np.isinf(long).sum())
    solved = long[np.isfinite(long)]
    after = _span(solved) if len(solved) else "none solved"
    after += f", {never} not solved" if never and len(solved) else ""
    return f"{_span(short)} iterations become {after}"


def _span(values: "pd.Series[float]") -> str:
    low, high = values.min(), values.max()
    return f"{low:.0f}" if low == high else f"{low:.0f} to {high:.0f}"


def _why(key: str, rows: "pd.DataFrame", times: "pd.Series[float]") -> str:
    """The network that decides against the claim."""
    if times.empty:
        return ""
    at = rows.iloc[int(np.argmax(times) if key == "flat" else np.argmin(times))]
    return (
        f"g = {at['scale']:g}, seed {at['seed']}, with the exponent {at['exponent_long']:+.3f}: "
        f"{shown(at['iterations_short'])} iterations, then {shown(at['iterations_long'])}"
    )


def _ranks(table: "pd.DataFrame") -> list[Claim]:
    """Iterations follow the exponent; and in models of text they follow the decay of BPTT's own gradient."""
    rows = longest(iterations_of(table))
    rows = rows[rows["cell"] != LINEAR]
    exponent = "the number of iterations follows the largest Lyapunov exponent"
    gradient = "the more slowly a model's gradient vanishes, the more iterations it needs"
    claims_ = []
    for key, text, source, part, by, low in (
        ("rank.random", exponent, PREDICTABLE, "random", "exponent", RANK),
        ("rank.language", exponent, PREDICTABLE, "language", "exponent", RANK),
        ("gradient", gradient, "lecture, slide Vanishing, exploding", "language", "decay", 0.0),
    ):
        here = rows[rows["part"] == part]
        known = bool((here["known"] & np.isfinite(here[by])).all())
        rank = rank_correlation(here[by], here["iterations"])
        what = "random networks" if part == "random" else "looks at models of text"
        setting = f"{len(here)} {what}, T = {here['steps'].max():,}" if len(here) else what
        threshold = f"Spearman's rank correlation at least {low:g}, by a 95% interval" if low else "a rank correlation above 0"
        if here.empty:
            claims_.append(Claim(key, text, source, setting, threshold))
            continue
        measured = f"{rank.told('.3f')}" if known and math.isfinite(rank.value) else UNDEFINED
        kinds = {cell: rank_correlation(of[by], of["iterations"]).value for cell, of in here.groupby("cell")}
        within = ", ".join(f"{cell!s} {value:.2f}" for cell, value in kinds.items() if math.isfinite(value))
        why = f"cells of different kinds need different numbers at one exponent; within a kind the correlation is {within}"
        claims_.append(
            Claim(key, text, source, setting, threshold, measured, decided(rank, low=low), why, {"rank": rank.value})
        )
    return claims_


def _trained(table: "pd.DataFrame") -> list[Claim]:
    """Trained language models, by cell."""
    claim = "trained", f"trained language models are solved in {TRAINED[0]} to {TRAINED[1]} iterations"
    models, rows = trained(iterations_of(table)), []
    threshold = f"{TRAINED[0]} to {TRAINED[1]} iterations at every T"
    for cell in dict.fromkeys(models["cell"]):
        here = models[models["cell"] == cell]
        least, most = here["iterations"].min(), here["iterations"].max()
        setting = f"{cell}, {len(here)} sequences of text, T <= {here['steps'].max():,}"
        measured = UNDEFINED
        if here["known"].all():
            measured = (
                f"{shown(least)} to {shown(most)}; exponents {here['exponent'].min():+.2f} to {here['exponent'].max():+.2f}"
            )
        right = least >= TRAINED[0] and most <= TRAINED[1]
        why = "its exponent is lower than that of the models the range was found with, so it needs fewer"
        why = why if most <= TRAINED[1] else "its exponent is close to 0, where iterations grow with T"
        rows.append(
            Claim(*claim, PREDICTABLE, setting, threshold, measured, right, why, {"cell": cell, "least": least, "most": most})
        )
    return rows or [Claim(*claim, PREDICTABLE, "language models", threshold)]


def _ways(table: "pd.DataFrame") -> list[Claim]:
    """The diagonal and the damped way beside full Jacobians, and float32 beside float64."""
    full, keys = iterations_of(table), [*LOOK, "window", "steps"]
    rows = []
    for key, way, dtype, text, source, threshold, chosen, right in _COMPARED:
        both = full.merge(iterations_of(table, way, dtype), on=keys, suffixes=("", "_other"))
        both = both[both["cell"] != LINEAR]
        here = both[chosen(both) | ~both["known"]]
        setting = f"{len(here)} sequences"
        if here.empty:
            rows.append(Claim(key, text, source, "random networks and models of text", threshold))
            continue
        fits = right(here)
        known = bool((here["known"] & here["known_other"]).all())
        measured = f"{int(fits.sum())} of {len(here)}" if known else UNDEFINED
        times = (here["iterations_other"] / here["iterations"])[np.isfinite(here["iterations_other"])].median()
        if key == "diagonal" and known and math.isfinite(times):
            measured += f"; {times:.1f} times as many in the middle"
        reason = _exception(here[~fits])
        if key == "float32":
            reason += (
                "; at the guess of zeros the slopes are steepest, so that the first guesses may grow as a linear network's "
                "states, by the spectral radius a step, beyond float32's 3e38"
            )
        rows.append(Claim(key, text, source, setting, threshold, measured, _each(fits), reason, {"times": float(times)}))
    return rows


def _exception(rows: "pd.DataFrame") -> str:
    if rows.empty:
        return ""
    at = rows.iloc[0]
    return (
        f"{at['cell']}, g = {at['scale']:g}" if at["part"] == "random" else f"{at['cell']} on {at['corpus']}"
    ) + f", T = {at['steps']:,}, exponent {at['exponent']:+.3f}: {shown(at['iterations'])} and {shown(at['iterations_other'])}"


Rows = Callable[[pd.DataFrame], "pd.Series[bool]"]
_COMPARED: tuple[tuple[str, str, str, str, str, str, Rows, Rows], ...] = (
    (
        "diagonal", "diagonal", "float64", "the Jacobian's diagonal alone needs more iterations than all of it", ELK,
        "more, for every sequence that the full Jacobian solves",
        lambda rows: np.isfinite(rows["iterations"]), lambda rows: rows["iterations_other"] > rows["iterations"],
    ),
    (
        "damped", "damped", "float64", "damping keeps Newton's guesses finite where full Jacobians overflow", ELK,
        "no overflow, for every sequence whose full Jacobians overflow",
        lambda rows: rows["reason"] == "overflow", lambda rows: rows["reason_other"] != "overflow",
    ),
    (
        "float32", "full", "float32", "where gradients vanish, float32 suffices", PREDICTABLE,
        "solved to 1e-4, for every sequence with an exponent below 0",
        lambda rows: rows["exponent"] < 0, lambda rows: np.isfinite(rows["iterations_other"]),
    ),
)  # fmt: skip


def _stopping(table: "pd.DataFrame") -> list[Claim]:
    """Whether the residual alone says when to stop."""
    text = "Newton may stop by the residual alone, without knowing the truth"
    threshold = f"every state within {SAFE} times the tolerance 1e-6 when every residual is below it"
    rows = iterations_of(table)
    rows, claims_ = rows[~rows["cell"].isin([LINEAR, "rnn-relu"])], []  # states that have no bound have no small error
    for key, sign, inside, reason in (
        ("stopping.vanishing", "below", rows["exponent"] < 0, "near 0, errors of many steps add up before they fade"),
        ("stopping.exploding", "above", rows["exponent"] > 0, CHAOS),
    ):
        here = rows[inside & (rows["stopped"] != math.inf)]
        setting = f"{len(here)} sequences of bounded cells, exponent {sign} 0"
        if here.empty:
            claims_.append(Claim(key, text, DEER, f"sequences with an exponent {sign} 0", threshold))
            continue
        known = bool((here["known"] & here["error"].between(0, math.inf, inclusive="left") & (here["stopped"] >= 0)).all())
        worst = float(here["error"].max())
        measured = f"off by {worst:.1e} at the most" if known else UNDEFINED
        claims_.append(Claim(key, text, DEER, setting, threshold, measured, worst <= SAFE * 1e-6, reason, {"worst": worst}))
    return claims_


def needed(table: "pd.DataFrame", way: str) -> float:
    """Iterations of the trained LSTMs at the largest T that was counted that way: their median; nan if none was."""
    models = trained(iterations_of(table, way))
    models = longest(models[models["cell"] == "lstm"])
    return float(models["iterations"].median()) if len(models) and models["known"].all() else math.nan


def costs(table: "pd.DataFrame") -> "pd.DataFrame":
    """Microseconds on paper: columns cell, batch, hidden, steps, fused, full, diagonal; and ``full_even``, ``diagonal_even``,
    the iterations with which Newton, whose backward pass is one scan more, takes as long."""
    rows = table[table["part"] == "cost"]
    keys = ["cell", "batch", "hidden", "steps"]
    named = rows.assign(name=rows["way"].where(rows["way"] != "", rows["quantity"]))
    wide = (
        named.groupby([*keys, "name"])["value"].first().unstack().reindex(columns=["fused", "full", "diagonal"]).reset_index()
    )
    for way in ("full", "diagonal"):
        fine = (wide[way] > 0) & (wide["fused"] > 0) & np.isfinite(wide["fused"])
        wide[f"{way}_even"] = (wide["fused"] / wide[way].where(fine)) - 1
    return wide


def _pays(table: "pd.DataFrame") -> list[Claim]:
    """Whether Newton would be faster than the fused recurrence, at the planner's sizes."""
    text = "solving all steps at once could be faster than the fused recurrence (on paper, unmeasured on a GPU)"
    wide, rows = costs(table), []
    wide = wide[wide["steps"] == (PAID if (wide["steps"] == PAID).any() else wide["steps"].max())]
    for way in ("full", "diagonal"):
        k = needed(table, way)
        key, source = f"pays.{way}", DEER if way == "full" else ELK
        for _, at in wide.iterrows():
            setting = f"{at['cell']}, n = {at['hidden']:,}, B = {at['batch']}, T = {at['steps']:,}, H100"
            even = float(at[f"{way}_even"])
            threshold = "the iterations of a trained LSTM are fewer than those with which both take as long"
            if table[(table["part"] == "language") & (table["way"] == way)].empty:
                rows.append(Claim(key, text, source, setting, threshold))
                continue
            memory = at[way] == math.inf and math.isfinite(at["fused"])
            exists = k > 0 and math.isfinite(k) and (memory or (math.isfinite(even) and even > -1))
            beside = f"{even:.1f} would take as long at best" if even > 0 else "the backward pass alone takes longer"
            measured = "the Jacobians exceed the memory" if memory else f"{k:.0f} iterations; {beside}"
            why = "full Jacobians cost n^3 operations and n^2 numbers a step" if way == "full" else "too many iterations"
            facts = {"way": way, "batch": int(at["batch"]), "hidden": int(at["hidden"]), "even": even, "needed": k}
            rows.append(Claim(key, text, source, setting, threshold, measured if exists else UNDEFINED, k < even, why, facts))
    if wide.empty:
        rows = [
            Claim(f"pays.{way}", text, DEER, "H100", "fewer iterations than would take as long") for way in ("full", "diagonal")
        ]
    return rows
