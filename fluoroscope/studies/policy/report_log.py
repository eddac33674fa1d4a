"""What the report says of single replies: choices per token, the replay, and branch points."""

from collections import Counter

import polars as pl

from fluoroscope.runs.report import Gate, Report
from fluoroscope.runs.report_strips import Strip, StripRow
from fluoroscope.runs.run import Run
from fluoroscope.studies.policy.config import EXACT
from fluoroscope.studies.policy.report_findings import Findings, mode_name
from fluoroscope.studies.policy.steps.learn import logged_policy
from fluoroscope.studies.policy.steps.replay import BRANCHES, LOG, REPLAY, REPLIES

_SHOWN = 12
_LATENTS = 4
"""Rows of a strip beside the probability of acting."""

_OTHERS = "other latents"


def add_log(report: Report, run: Run, found: Findings) -> None:
    folder = run.step_folder(REPLAY)
    log, replies = pl.read_parquet(folder / LOG), pl.read_parquet(folder / REPLIES)
    mode, _, seed = logged_policy(found.config)
    n, n_same = len(replies), int(replies["is_same_again"].sum())
    changed = int((replies["text"] != replies["unsteered"]).sum())
    report.section("Token by token")
    report.text(
        f"{n} replies of the test side, by training {seed} of the {mode_name(mode)}, were written "
        f"down token by token ({len(log)} tokens; `replay/log.parquet` and `log.jsonl`). The "
        f"actions of the log, read back from the file and replayed, give **the same text in "
        f"{n_same} of {n}**. At {int((log['action'] != 0).sum())} tokens something was done; "
        f"{changed} replies differ from the unsteered ones under the same luck."
        + (
            " This policy was trained at the prompt's end alone, and is asked at later tokens too."
            if mode == EXACT and bool((log["t"] > 0).any())
            else ""
        )
    )
    report.gates(
        [Gate("replies that replay alike", n_same / n, "1", n_same == n, f"{n} replies")],
        "replay_gates",
    )
    report.strips(
        strips(log, replies),
        "The first of each part. Under each token: how likely the policy was to act there, and "
        "what it added, as |amount| by latent. Numbers are under the pointer.",
    )
    _add_branches(report, pl.read_parquet(folder / BRANCHES), replies, found)


def strips(log: pl.DataFrame, replies: pl.DataFrame) -> list[Strip]:
    acted = log.filter(pl.col("action") != 0)
    used = Counter(_latent(row) for row in acted.iter_rows(named=True))
    names = [name for name, _ in sorted(used.items(), key=lambda one: (-one[1], one[0]))]
    rows_of = names if len(names) <= _LATENTS else [*names[: _LATENTS - 1], _OTHERS]
    largest = acted["coefficient"].abs().max() if len(acted) else None
    full = float(largest) if isinstance(largest, float) and largest > 0 else 1.0
    found = []
    for number, reply in enumerate(replies.head(_SHOWN).iter_rows(named=True)):
        steps = log.filter(request=number).sort("t").to_dicts()
        amounts: dict[str, list[float]] = {name: [0.0] * len(steps) for name in rows_of}
        for place, step in enumerate(steps):
            if step["action"]:
                own = _latent(step) if _latent(step) in amounts else _OTHERS
                amounts[own][place] = abs(step["coefficient"])
        likely = [1 - step["no_op_probability"] for step in steps]
        rows = [StripRow("probability of acting", likely, 1.0)]
        rows += [StripRow(name, values, full) for name, values in amounts.items()]
        found.append(
            Strip(
                [step["token_text"] for step in steps],
                rows,
                reply["part"],
                reply["prompt"],
                {"unsteered": reply["unsteered"].strip() or "(empty)"},
            )
        )
    return found


def _latent(row: dict[str, object]) -> str:
    return f"{row['hook_point']} {row['latent']}"


def _add_branches(
    report: Report, branches: pl.DataFrame, replies: pl.DataFrame, found: Findings
) -> None:
    report.subsection("Branch points")
    n = min(found.config.evaluate.branches, len(replies))
    if not found.config.has_text_scores:
        report.text("Generated replies to this task are not scored, so branches are not judged.")
        return
    about = (
        "The branch of a reply is its first token that would have been another if the policy had "
        "done nothing there, on the same luck. From there the reply is written anew with nothing "
        "done and with the runner-up action; a branch is decisive where doing nothing changes the "
        "score."
    )
    if not len(branches):
        report.text(f"{about} None of {n} replies has one: what was done changed no drawn token.")
        return
    decisive = branches.filter("is_decisive")
    gained = int((decisive["outcome"] > decisive["without"]).sum())
    same = int(branches["is_same_again"].sum())
    report.text(
        f"{about} Of {n} replies {len(branches)} have a branch, {len(decisive)} of them decisive: "
        f"{gained} for the better, {len(decisive) - gained} for the worse"
        + (
            " (a better score is not always what is aimed at)"
            if found.config.towards is not None
            else ""
        )
        + f". Forcing the action itself gave the same reply in {same} of {len(branches)}."
    )
    named = branches.with_columns(
        prompt=pl.Series([replies["prompt"][row] for row in branches["request"]]),
        action=pl.Series([found.actions[one] for one in branches["action"]]),
        runner_up=pl.Series(
            [None if one is None else found.actions[one] for one in branches["runner_up"]],
            dtype=pl.String,
        ),
    )
    columns = ["prompt", "t", "action", "outcome", "without", "runner_up", "with_runner_up",
               "is_decisive"]  # fmt: skip
    report.table("branches", named.select(columns), "Branch points.")
