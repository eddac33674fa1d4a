"""What a plug-in run comes to in words: what the layer is worth, and what is to be held against it.

Verdicts and caveats follow rules, each a function of its own; none is written by hand. Nothing is
called better without the control that it was better than.
"""

from collections.abc import Callable, Sequence

from fluoroscope.core.intervals import MIN_UNITS
from fluoroscope.runs.interval_text import between
from fluoroscope.runs.report import Report
from fluoroscope.steps.comparing_arms import ALPHA
from fluoroscope.studies.plugin.form import BASE
from fluoroscope.studies.plugin.report_findings import Compared, Findings, SetFindings, label_of

FEW_GROUPS, FEW_EXAMPLES, FEW_SEEDS = 20, 500, 5

UNTAUGHT = ("random_layer", "permuted_layer")
"""Controls with a layer that holds nothing of what was learnt."""

LAYERLESS = (BASE, "linear", "mlp")

_SATURATED = 0.995


def add_verdict(report: Report, found: Findings) -> None:
    report.section("What the layer is worth" if found.config.n_layers else "How good it is")
    for one in found.sets:
        report.text(" ".join(headline(found, one)))
    said = caveats(found)
    if said:
        report.text("**To be held against it**\n\n" + "\n".join(f"- {one}" for one in said))


def headline(found: Findings, one: SetFindings) -> list[str]:
    """Sentences of one data set."""
    config = found.config
    accuracy = found.scores(one.judged[one.main.key], one.side)["accuracy"]
    n_seeds = "of one training" if config.seeds == 1 else f"in the mean of {config.seeds} trainings"
    who = f"*{one.main.name}*"
    if one.layer is not None:
        how = f"chosen by {config.selection.method}" if config.chooses else "as set"
        who += f" with layer {one.layer} of 0 to {config.n_layers - 1} ({how})"
    said = [
        f"**{one.name}**: {who} gets **{between(*accuracy, sign='')}** of {one.n:,} test examples "
        f"right, {n_seeds}."
    ]
    compared = found.of_set(one.name)
    named = [other for other in compared if not found.is_sweep(one, other.arm)]
    said += _outcomes(named)
    layers = [other for other in compared if found.is_sweep(one, other.arm)]
    if layers:
        n = {kind: sum(other.outcome == kind for other in layers)
             for kind in ("beat", "was worse than")}  # fmt: skip
        said.append(
            f"Of {len(layers)} other layers it beat {n['beat']} and was worse than "
            f"{n['was worse than']}."
        )
    return [*said, *_worth(named), *_over_base(named)]


def caveats(found: Findings) -> list[str]:
    rules: Sequence[Callable[[Findings], str]] = (
        _no_controls, _few_seeds, _few_examples, _few_groups, _saturated, _own_sides,
        _fewer_to_learn, _depth,
    )  # fmt: skip
    return [said for said in (rule(found) for rule in rules) if said]


def _outcomes(named: Sequence[Compared]) -> list[str]:
    """A sentence for each outcome that there is."""
    said = []
    for outcome in ("beat", "was worse than", "did not beat"):
        those = [
            f"{label_of(other.arm)} ({between(*other.interval)}, q = {other.q:.2g})"
            for other in named
            if other.outcome == outcome
        ]
        if those:
            verb = outcome if outcome == "did not beat" else f"**{outcome}**"
            said.append(f"It {verb} {_and(those)}.")
    return said


def _worth(named: Sequence[Compared]) -> list[str]:
    """Of what the layer learnt: both controls that hold nothing of it were trained and beaten, and
    nothing without a layer is better than the main arm.
    """
    outcome = {other.arm.name: other.outcome for other in named}
    if not outcome.keys() & set(UNTAUGHT):
        return []
    equal = [name for name in UNTAUGHT if outcome.get(name) == "did not beat"]
    better = [name for name in UNTAUGHT if outcome.get(name) == "was worse than"]
    layerless = [name for name in LAYERLESS if outcome.get(name) == "was worse than"]
    missing = [name for name in UNTAUGHT if name not in outcome]
    reasons = [
        f"{_and(names)}{which} {several if len(names) > 1 else one} {what}"
        for names, which, (one, several), what in (
            (equal, ", without what it learnt,", ("does", "do"), "as well, as far as can be told"),
            (better, ", without what it learnt,", ("does", "do"), "better"),
            (layerless, ", without any layer,", ("does", "do"), "better"),
            (missing, "", ("was", "were"), "not trained beside it"),
        )
        if names
    ]
    if reasons:
        return [
            "So it is **not shown that what the layer learnt is worth anything here**: "
            f"{'; '.join(reasons)}."
        ]
    return [f"So **what the layer learnt is worth something here**, beside {_and(UNTAUGHT)}."]


def _over_base(named: Sequence[Compared]) -> list[str]:
    if not any(other.arm.name == BASE and other.outcome == "beat" for other in named):
        return []
    equal = [other.arm.name for other in named
             if other.arm.name in ("linear", "mlp") and other.outcome != "beat"]  # fmt: skip
    if not equal:
        return []
    return [
        f"What it has over the encoder alone may come from more to train: it did not beat "
        f"{_and(equal)}, which {'have' if len(equal) > 1 else 'has'} no layer at all."
    ]


def _no_controls(found: Findings) -> str:
    if found.config.main_form is None:
        return ""
    names = {arm.name for one in found.sets for arm in one.arms}
    missing = [name for name in (BASE, *UNTAUGHT) if name not in names]
    if not missing:
        return ""
    trained = [name for name in UNTAUGHT if name in names]
    lacking = ["the encoder alone" if name == BASE else name for name in missing]
    said = []
    if BASE in missing:
        said.append("what the layer adds has nothing to be held against")
    if not trained:
        said.append("what the layer learnt has nothing to be held against")
    elif len(trained) < len(UNTAUGHT):
        said.append(
            f"what the layer learnt is held against {_and(trained)} alone, which does not decide"
        )
    return (
        f"**{_and(lacking)} {'was' if len(missing) == 1 else 'were'} not trained beside it** "
        f"(add {','.join(missing)} to `beside`), so that {_and(said)}."
    )


def _few_seeds(found: Findings) -> str:
    n = found.config.seeds
    if n == 1:
        return (
            "**One training each**: how much another seed changes is not known, and no interval or "
            "p holds it. Take `seeds=5`."
        )
    if n < FEW_SEEDS:
        return f"Intervals draw again from {n} seeds, which is few: they are rough. p does not."
    return ""


def _few_examples(found: Findings) -> str:
    few = [one for one in found.sets if one.n < FEW_EXAMPLES]
    if not few:
        return ""
    said = []
    for one in few:
        accuracy = float(one.judged[one.main.key].right.mean())
        error = 100 * (accuracy * (1 - accuracy) / one.n) ** 0.5
        said.append(f"{one.name} has {one.n} test examples (standard error {error:.1f} points)")
    return f"{'; '.join(said)}: smaller differences cannot be seen."


def _few_groups(found: Findings) -> str:
    few = {one.name: one.side.draws.n_groups for one in found.sets}
    few = {name: n for name, n in few.items() if n < FEW_GROUPS}
    if not few:
        return ""
    none = " Below 10 there is no interval." if min(few.values()) < MIN_UNITS else ""
    return f"Groups of test examples are few: {_counts(few)}.{none}"


def _saturated(found: Findings) -> str:
    full = [
        one.name
        for one in found.sets
        if min(judged.right.mean() for judged in one.judged.values()) >= _SATURATED
    ]
    if not full:
        return ""
    return f"All arms get nearly all of {_and(full)} right: there is no room for one to be better."


def _own_sides(found: Findings) -> str:
    said = []
    if found.config.split == "paper":
        said.append("Sides are the plan's own (`split=paper`): texts may stand on two sides.")
    drawn = [one.name for one in found.sets if "drawn" in str(one.about["origins"].get("test"))]
    if drawn:
        said.append(f"The test side of {_and(drawn)} was drawn here: no published number is of it.")
    return " ".join(said)


def _fewer_to_learn(found: Findings) -> str:
    n = found.config.n_train
    return "" if n is None else f"It learnt from {n:,} examples at most (`n_train`), not from all."


def _depth(found: Findings) -> str:
    config = found.config
    bias = config.selection.ilm.depth_bias
    if not config.chooses or not config.selection.method.startswith("ilm") or not bias:
        return ""
    return (
        f"{config.selection.method} takes {bias:.0%} of its score from the last layer and nothing "
        "from the first, by rule (`selection.ilm.depth_bias`): early layers are favoured."
    )


def _and(names: Sequence[str]) -> str:
    names = list(dict.fromkeys(names))
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in counts.items())


def rule_in_words() -> str:
    """What stands behind `beat` and `was worse than`."""
    return (
        f"One *beat* another where the 95 % interval of the difference is above 0 and q is below "
        f"{ALPHA:g}; *was worse than* is the same below 0. Intervals are percentiles of a two-way "
        "bootstrap: groups of test examples (the same for all arms) and seeds of trainings are "
        "drawn again together, the few seeds spread out by the root of S / (S - 1). p flips the "
        "signs of whole groups' differences, averaged over seeds (McNemar's question for more than "
        "one training), and takes these trainings as they are; q is Benjamini and Hochberg's over "
        "all differences of this run."
    )
