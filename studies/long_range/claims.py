"""Claims of the long_range study, and shares of success with intervals."""

import math
from typing import Any

import numpy as np
import pandas as pd

from recurrent_lm.studies.engine.claims import NOT, Claim
from recurrent_lm.studies.engine.statistics import UNDEFINED, Interval, decided, fisher, mean, ratio, share

KEYS = ["part", "task", "cell", "method", "steps"]
STATED = {"hidden": 50, "rate": 0.01, "threshold": 1.0}  # the setting that claims 9, 10 and 13 speak of
PASCANU = "Pascanu et al. 2013, section 4.1 and figure 7"
RECENT, FAR, LEFT = 5, 10, 0.01  # claims on text: tokens that bring 90% of the gain; a lag, and what is left there of the KL
BETWEEN = (5, 20)  # lags at which cells are compared
ONE = "one seed shows no spread, so nothing says what another would give; --set models=3"
FEW = "the interval over so few seeds reaches across the limit; --set models=5 would narrow it"


def summary(table: "pd.DataFrame") -> "pd.DataFrame":
    """One row a setting: ``seeds``, how many ``solved``, the ``share`` with Wilson's interval (``low``, ``high``), the median
    of ``updates`` of those that solved, and the mean of ``nats`` over seeds."""

    rows = []
    for key, group in table.groupby(KEYS, sort=False):
        task = group["error"].notna().any()
        value, low, high = share(int(group["solved"].sum()), len(group)) if task else (math.nan,) * 3
        updates = group.loc[group["solved"] == 1, "updates"].median()
        counts = {"seeds": len(group), "solved": int(group["solved"].sum()), "share": value, "low": low, "high": high}
        rows.append(dict(zip(KEYS, key, strict=True)) | counts | {"updates": updates, "nats": group["nats"].mean()})
    return pd.DataFrame(rows)


def claims(table: "pd.DataFrame") -> list[Claim]:
    """Claims 9, 10 and 13 on clipping and Omega; gates learn longer lags; language models lean on recent tokens."""
    about, controls = summary(table), [_control(table, *control) for control in CONTROLS]
    return [_raises(table), *controls, _omega(table, about), *_gates(table, about), *_text(table)]


def counts(table: "pd.DataFrame", steps: int, method: str, updates: int, seeds: int) -> tuple[int, int] | None:
    """(seeds solved within ``updates``, seeds) among the first ``seeds`` on temporal order; None if unmeasured."""
    about = table.attrs["parameters"]
    if any(about[name] != value for name, value in STATED.items()) or about["updates"] < updates or about["seeds"] < seeds:
        return None
    here = (table["part"] == "clipping") & (table["method"] == method) & (table["steps"] == steps)
    rows = table[here & (table["seed"] <= seeds)]
    if len(rows) < seeds:
        return None
    return int(((rows["solved"] == 1) & (rows["updates"] <= updates)).sum()), seeds


def _raises(table: "pd.DataFrame") -> Claim:
    plain, clipped = (counts(table, 30, method, 30_000, 15) for method in ("plain", "clipped"))
    measured, verdict = NOT, NOT
    if plain and clipped:
        p = fisher((plain[0], clipped[0]), (plain[1], clipped[1]))
        measured = f"plain {_of(plain)}, clipped {_of(clipped)} (Fisher p = {p:.2g})"
        verdict = "fails" if clipped[0] <= plain[0] else "holds" if p < 0.05 else "ambiguous"
    threshold = "clipped above plain, Fisher p < 0.05 (expected 1/15 and 11/15, p = 0.0005)"
    setting = "temporal order, T = 30, 50 tanh units, 30,000 updates, 15 pairs"
    return Claim("clipping_raises", "clipping raises success", PASCANU, setting, threshold, measured, verdict)


# T, claim, updates, seeds, and how many are expected to succeed, plain and clipped
CONTROLS = (
    (20, "a short lag is learned with clipping and without", 30_000, 5, {"plain": 5, "clipped": 5}),
    (50, "at a longer lag clipping helps some", 60_000, 5, {"plain": 0, "clipped": 2}),
    (100, "clipping cannot cure vanishing", 40_000, 10, {"clipped": 0}),
)


def _control(table: "pd.DataFrame", steps: int, text: str, updates: int, seeds: int, expected: dict[str, int]) -> Claim:
    """Holds if the counts are the expected ones; ambiguous if each difference may be chance (Fisher p >= 0.05)."""
    successes = {method: counts(table, steps, method, updates, seeds) for method in expected}
    threshold = ", ".join(f"{method} {n}/{seeds}" for method, n in expected.items())
    measured, verdict, why = NOT, NOT, ""
    if all(successes.values()):
        seen = {method: count[0] for method, count in successes.items() if count}
        measured = ", ".join(f"{method} {n}/{seeds}" for method, n in seen.items())
        p = min(fisher((n, expected[method]), (seeds, seeds)) for method, n in seen.items())
        verdict = "holds" if seen == expected else "ambiguous" if p >= 0.05 else "fails"
        if verdict == "ambiguous":
            why = f"{seeds} seeds are few: counts this far apart are nothing unusual by chance (Fisher p = {p:.2g})"
    setting = f"temporal order, T = {steps}, {updates:,} updates, {seeds} seeds"
    return Claim(f"control.{steps}", text, PASCANU, setting, threshold, measured, verdict, why)


def longest(about: "pd.DataFrame", method: str) -> int:
    """The largest T up to which at least 80% succeed at every T measured; 0 for none. ``about`` is a ``summary``."""
    rows = about[(about["part"] == "clipping") & (about["method"] == method)].sort_values("steps")
    reached = 0
    for steps, value in zip(rows["steps"], rows["share"], strict=True):
        if not value >= 0.8:  # nan, too: nobody knows how many succeeded
            break
        reached = int(steps)
    return reached


def _omega(table: "pd.DataFrame", about: "pd.DataFrame") -> Claim:
    """Holds where Omega's longest T is beyond that of clipping alone and the counts at it differ beyond chance."""
    claim = "omega", "the T where success is 80% grows with Omega", "Pascanu et al. 2013, eq. 9 and 10, figure 7"
    mine = about[about["part"] == "clipping"]
    parameters = table.attrs["parameters"]
    setting = f"temporal order, weight {parameters['weight']:g}, {parameters['updates']:,} updates, {parameters['seeds']} seeds"
    threshold = "longest T of >= 80% with Omega above that of clipping alone; there Fisher p < 0.05"
    shared = set.intersection(*(set(mine.loc[mine["method"] == m, "steps"]) for m in ("clipped", "regularised")))
    if not shared or parameters["weight"] == 0:
        return Claim(*claim, setting, threshold)
    both = mine[mine["steps"].isin(shared)]
    clipped, omega = longest(both, "clipped"), longest(both, "regularised")
    measured = f"T = {clipped or f'below {min(shared)}'} clipped, {omega or f'below {min(shared)}'} with Omega"
    if clipped == omega:
        more = " (the longest measured)" if clipped == max(shared) else ""
        return Claim(*claim, setting, threshold, measured + more, "ambiguous")
    at = both[both["steps"] == max(clipped, omega)].set_index("method")
    solved, seeds = at["solved"], at["seeds"]
    p = fisher((solved["clipped"], solved["regularised"]), (seeds["clipped"], seeds["regularised"]))
    pair = f"{solved['clipped']}/{seeds['clipped']} and {solved['regularised']}/{seeds['regularised']}"
    measured += f"; at T = {at['steps'].iloc[0]} {pair} (Fisher p = {p:.2g})"
    verdict = "fails" if omega < clipped else "holds" if p < 0.05 else "ambiguous"
    return Claim(*claim, setting, threshold, measured, verdict)


def _gates(table: "pd.DataFrame", about: "pd.DataFrame") -> list[Claim]:
    claim = "gates_learn", "gates learn what lies further back", "lecture, slide Why it matters (gates help)"
    threshold = "more successes over all T than tanh, Fisher p < 0.05"
    mine = about[about["part"] == "gates"]
    rows: list[Claim] = []
    for task, group in mine.groupby("task", sort=False):
        solved, seeds = (group.groupby("cell")[column].sum() for column in ("solved", "seeds"))
        steps = ", ".join(str(t) for t in sorted(set(group["steps"])))
        for cell in ("lstm", "gru"):
            name = f"{str(task).replace('_', ' ')}, {cell}"
            setting = f"{name}, T = {steps}"
            if cell not in solved or "rnn-tanh" not in solved:
                rows.append(Claim(*claim, setting, threshold))
                continue
            few, many = int(solved["rnn-tanh"]), int(solved[cell])
            p = fisher((few, many), (seeds["rnn-tanh"], seeds[cell]))
            measured = f"tanh {few}/{seeds['rnn-tanh']}, {cell} {many}/{seeds[cell]} (Fisher p = {p:.2g})"
            verdict = "ambiguous" if p >= 0.05 else "holds" if many > few else "fails"
            why = _apart(group, cell, table.attrs["parameters"]["adam_updates"]) if verdict == "ambiguous" else ""
            rows.append(Claim(*claim, setting, threshold, measured, verdict, why, {"of": name}))
    return rows or [Claim(*claim, "all", threshold)]


def _apart(of_task: "pd.DataFrame", cell: str, budget: int) -> str:
    """At which T a cell and tanh differ at all, of the ``summary`` of one task."""
    solved = of_task.pivot_table(index="steps", columns="cell", values="solved")
    apart = solved[solved["rnn-tanh"] != solved[cell]]
    same = ", ".join(f"{steps}" for steps in solved.index.difference(apart.index))
    told = "; ".join(f"at T = {t} tanh {row['rnn-tanh']:.0f}, {cell} {row[cell]:.0f}" for t, row in apart.iterrows())
    alike = f"at T = {same} both learn it equally often, so only the rest tells: " if same else ""
    return f"{alike}{told or 'nothing'}, of {int(of_task['seeds'].max())} seeds with {budget:,} updates each"


def ninety(rows: "pd.DataFrame") -> float:
    """Number of tokens after which 90% of the gain of all M tokens over word frequencies is reached, for one model's rows of
    history.

    Interpolates the loss linearly over log(1 + n) between measured n; the history beyond is dropped. nan if history gains
    nothing.
    """

    curve = rows[rows["method"].isin(["dropped", "all"])].sort_values("steps")
    n, loss = curve["steps"].to_numpy(dtype=float), curve["nats"].to_numpy(dtype=float)
    if not len(loss) or not np.isfinite(loss).all() or not loss[-1] < loss[0]:
        return math.nan
    wanted = loss[0] - 0.9 * (loss[0] - loss[-1])
    first = int(np.argmax(loss <= wanted))
    if not first:  # a gain that is lost in rounding
        return math.nan
    within = (loss[first - 1] - wanted) / (loss[first - 1] - loss[first])
    return float(np.expm1((1 - within) * np.log1p(n[first - 1]) + within * np.log1p(n[first])))


def left_at(rows: "pd.DataFrame", low: int, high: float = math.inf) -> float:
    """Mean KL at the lags from ``low`` to ``high`` relative to that at lag 0, for one model's rows of influence; nan if
    missing.
    """
    by_lag = rows.set_index("steps")["nats"]
    far = by_lag[(by_lag.index >= low) & (by_lag.index <= high)]
    if 0 not in by_lag.index or far.empty or not by_lag[0] > 0:
        return math.nan
    return ratio(far.mean(), by_lag[0])


def _text(table: "pd.DataFrame") -> list[Claim]:
    about = "a language model is biased toward recent inputs", "lecture, slide Summary of RNNs"
    seeds = "by a 95% interval over seeds"
    gain = f"90% of the gain over word frequencies within the last {RECENT} tokens, {seeds}"
    fall = f"the KL of a change at lag {FAR} and further is at most {LEFT:g} of that at lag 0, {seeds}"
    rows: list[Claim] = []
    key: Any
    parts = {part: table[table["part"] == part] for part in ("history", "influence")}
    for key, group in parts["history"].groupby(["task", "cell"], sort=False):
        setting = f"{key[0]}, {key[1]}"
        of_seeds = [ninety(of_seed) for _, of_seed in group.groupby("seed")]
        decision = _most(of_seeds, RECENT, _whole(group), ".1f", " tokens")
        rows.append(Claim("recent.history", *about, setting, gain, *decision, {"of": setting}))
    for key, group in parts["influence"].groupby(["task", "cell"], sort=False):
        setting = f"{key[0]}, {key[1]}"
        of_seeds = [left_at(of_seed, FAR) for _, of_seed in group.groupby("seed")]
        decision = _most(of_seeds, LEFT, _whole(group, FAR), ".2g")
        rows.append(Claim("recent.influence", *about, setting, fall, *decision, {"of": setting}))
    rows = rows or [Claim("recent.history", *about, "all", gain)]
    return [*rows, *_kept_longer(parts["influence"])]


def _kept_longer(influence: "pd.DataFrame") -> list[Claim]:
    claim = "gates_keep", "gates keep what lies several steps back", "lecture, slide Problem with the vanilla RNN"
    threshold = f"mean KL at lags {BETWEEN[0]} to {BETWEEN[1]}, in parts of lag 0's, above tanh's by a 95% interval over seeds"
    rows: list[Claim] = []
    for corpus, group in influence.groupby("task", sort=False):
        remaining = {
            str(cell): {seed: left_at(of_seed, *BETWEEN) for seed, of_seed in of_cell.groupby("seed")}
            for cell, of_cell in group.groupby("cell")
        }
        for cell in ("lstm", "gru"):
            tanh = remaining.get("rnn-tanh", {})
            pairs = [(value, tanh[seed]) for seed, value in remaining.get(cell, {}).items() if seed in tanh]
            mine, theirs = [a for a, _ in pairs], [b for _, b in pairs]
            measured, verdict, why = NOT, NOT, ""
            if pairs and not any(map(math.isnan, mine + theirs)):
                more = mean([a - b for a, b in pairs])
                measured = (
                    f"{_range(mine, '.2g')}; tanh {_range(theirs, '.2g')}, {_seeds('difference', more, '.2g', len(pairs))}"
                )
                verdict = decided(more, low=0)
                why = _why(verdict, len(pairs))
            elif pairs and _whole(group[group["cell"].isin([cell, "rnn-tanh"])], *BETWEEN):
                measured, verdict = UNDEFINED, "ambiguous"
            setting = f"{corpus}, {cell}"
            rows.append(Claim(*claim, setting, threshold, measured, verdict, why, {"of": setting}))
    return rows or [Claim(*claim, "all", threshold)]


def _most(values: list[float], most: float, whole: bool, spec: str, unit: str = "") -> tuple[str, str, str]:
    """(measured, verdict, reason) of a number being at most so much, one value a seed; ``whole``: nothing of it is missing."""
    if any(map(math.isnan, values)):
        return (UNDEFINED, "ambiguous", "") if whole else (NOT, NOT, "")
    middle = mean(values)
    verdict = decided(middle, high=most)
    measured = f"{_range(values, spec, unit)}, {_seeds('mean', middle, spec, len(values))}"
    return measured, verdict, _why(verdict, len(values))


def _why(verdict: str, seeds: int) -> str:
    """Why seeds do not decide."""
    return "" if verdict != "ambiguous" else ONE if seeds == 1 else FEW


def _whole(rows: "pd.DataFrame", low: int = 0, high: float = math.inf) -> bool:
    """Whether rows hold a number at n or lag 0, one from ``low`` to ``high``, and nowhere a missing one."""
    steps = rows["steps"]
    return bool(rows["nats"].notna().all() and (steps == 0).any() and steps.between(max(low, 1), high).any())


def _seeds(word: str, interval: Interval, spec: str, count: int) -> str:
    return f"{word} {interval.told(spec)}" if count > 1 else "one seed"


def _range(values: list[float], spec: str, unit: str = "") -> str:
    low, high = f"{min(values):{spec}}", f"{max(values):{spec}}"
    return (low if low == high else f"{low} to {high}") + unit


def _of(count: tuple[int, int]) -> str:
    return f"{count[0]}/{count[1]}"
