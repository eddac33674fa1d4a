"""What a policy did, token by token (`replay/`).

replay/log.parquet, log.jsonl   a row a token: `action_log.LogRow`, with the sample's id and part
replay/replies.parquet          a row a reply: unsteered, with the policy, and with what was logged
replay/branches.parquet         where an action first changed a reply, and what came of it

The log is read back from the file, and its actions are replayed: the same texts must come of it.
Replies are of the test side, of every part as many as there are, sampled.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from fluoroscope.core.sink import Sink
from fluoroscope.core.storage import write_parquet, write_text
from fluoroscope.data.tasks.samples import Sample, Scorer
from fluoroscope.models.generation import generate
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.sampling import Sampling
from fluoroscope.models.texts import Generation, Request
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import Cost, MapStep, Shard, ShardContext
from fluoroscope.steps.models import load_model
from fluoroscope.steps.subject import sae_inputs
from fluoroscope.steps.task_cost import task_cost
from fluoroscope.steps.task_parts import part_of
from fluoroscope.studies.policy.acting import Acting, Replay
from fluoroscope.studies.policy.action_log import ActionLog, scripts_of_rows
from fluoroscope.studies.policy.branches import judge_branches
from fluoroscope.studies.policy.candidates import NO_OP, Candidates
from fluoroscope.studies.policy.config import PolicyConfig
from fluoroscope.studies.policy.forced import token_logits
from fluoroscope.studies.policy.heads import PolicyHead
from fluoroscope.studies.policy.steps.candidates import CANDIDATES, load_candidates
from fluoroscope.studies.policy.steps.learn import LEARN, load_head, logged_policy
from fluoroscope.studies.policy.steps.rewards import load_data
from fluoroscope.studies.policy.worth import text_reward
from fluoroscope.studies.policy.written import MAX_ROWS, in_turns, requests_of

REPLAY = "replay"
LOG, LOG_LINES, REPLIES, BRANCHES = (
    "log.parquet",
    "log.jsonl",
    "replies.parquet",
    "branches.parquet",
)
_MAX_LOGITS = 400
"""Tokens acted at whose logit without the action is read; each takes two readings of its text."""

_BRANCH_SCHEMA = {
    "request": pl.Int64,
    "t": pl.Int64,
    "action": pl.Int64,
    "token": pl.Int64,
    "unsteered_token": pl.Int64,
    "runner_up": pl.Int64,
    "outcome": pl.Float64,
    "without": pl.Float64,
    "with_runner_up": pl.Float64,
    "is_same_again": pl.Boolean,
    "is_decisive": pl.Boolean,
}
_LOG_SCHEMA = {
    "id": pl.String,
    "part": pl.String,
    "request": pl.Int64,
    "t": pl.Int64,
    "token": pl.Int64,
    "token_text": pl.String,
    "action": pl.Int64,
    "hook_point": pl.String,
    "latent": pl.Int64,
    "coefficient": pl.Float64,
    "probability": pl.Float64,
    "no_op_probability": pl.Float64,
    "entropy": pl.Float64,
    "n_allowed": pl.Int64,
    "logit_before": pl.Float64,
    "logit_after": pl.Float64,
}


class ReplayStep(MapStep):
    name = REPLAY

    def __init__(self, config: PolicyConfig) -> None:
        self.config = config
        self.inputs = (*sae_inputs(config), CANDIDATES, LEARN)

    def cost(self) -> Cost:
        evaluate = self.config.evaluate
        n = 3 * evaluate.logged + 4 * evaluate.branches
        return task_cost(self.config, self.config.task, 1, samples=n)

    def shards(self, run: Run) -> Sequence[Shard]:
        return [Shard("all")]

    def work(self, run: Run, shard: Shard, context: ShardContext) -> None:
        config, folder = self.config, context.folder
        mode, name, seed = logged_policy(config)
        model = load_model(run, config.model, context.device)
        candidates = load_candidates(run, config, name, context.device)
        head = load_head(run, config, mode, name, seed)
        data = load_data(run, config, config.task.name, context.device)
        test = data.sides["test"]
        parts = [part_of(sample, config.evaluate.within) for sample in test]
        samples = in_turns(test, parts, config.evaluate.logged)
        sampling = Sampling(**config.learn.sampling.model_dump())
        asked, requests = requests_of(data.asking, samples, 1, config.seed)
        acting = Acting(model, head, candidates, requests, is_masked=config.learn.is_masked)
        texts = _generated(model, acting, requests, sampling)
        log = acting.log()
        logged = self._rows(model, log, requests, asked, texts)
        write_parquet(folder / LOG, logged)
        lines = [json.dumps(row, ensure_ascii=False) for row in logged.iter_rows(named=True)]
        write_text(folder / LOG_LINES, "".join(f"{line}\n" for line in lines))
        context.sink.progress(1, 3, "parts")
        plain = Replay(model, candidates, [[NO_OP]] * len(requests))
        unsteered = _generated(model, plain, requests, sampling)
        written = pl.read_parquet(folder / LOG).to_dicts()
        again = Replay(model, candidates, scripts_of_rows(written, len(requests)))
        replayed = _generated(model, again, requests, sampling)
        write_parquet(folder / REPLIES, self._replies(asked, unsteered, texts, replayed, log))
        context.sink.progress(2, 3, "parts")
        scorer = data.asking.scorer
        branches = self._branches(model, head, candidates, asked, requests, sampling, scorer)
        write_parquet(folder / BRANCHES, pl.DataFrame(branches, schema=_BRANCH_SCHEMA))

    def merge(self, run: Run, folder: Path, sink: Sink) -> None:
        for name in (LOG, REPLIES, BRANCHES):
            write_parquet(folder / name, pl.read_parquet(folder / "shards" / "all" / name))
        lines = (folder / "shards" / "all" / LOG_LINES).read_text(encoding="utf-8")
        write_text(folder / LOG_LINES, lines)
        replies = pl.read_parquet(folder / REPLIES)
        same = int(replies["is_same_again"].sum())
        sink.message(f"{same} of {len(replies)} replies are the same when their log is replayed.")

    def _rows(
        self,
        model: LanguageModel,
        log: ActionLog,
        requests: Sequence[Request],
        samples: Sequence[Sample],
        texts: Sequence[Generation],
    ) -> pl.DataFrame:
        steps = zip(log.requests.tolist(), log.places.tolist(), log.actions.tolist(), strict=True)
        places = [(request, t) for request, t, action in steps if action != NO_OP][:_MAX_LOGITS]
        logits = token_logits(model, log, requests, texts, places)
        rows: list[dict[str, Any]] = []  # Any: values of a table.
        for row in log.rows(texts, logits):
            number, token = row["request"], row["token"]
            assert isinstance(number, int)
            assert isinstance(token, int)
            sample = samples[number]
            part = part_of(sample, self.config.evaluate.within)
            text = str(model.tokenizer.decode([token]))
            rows.append({"id": sample.id, "part": part, "token_text": text, **row})
        return pl.DataFrame(rows, schema=_LOG_SCHEMA)

    def _replies(
        self,
        samples: Sequence[Sample],
        unsteered: Sequence[Generation],
        texts: Sequence[Generation],
        replayed: Sequence[Generation],
        log: ActionLog,
    ) -> pl.DataFrame:
        scripts = log.scripts(len(samples))
        return pl.DataFrame(
            {
                "id": [sample.id for sample in samples],
                "part": [part_of(sample, self.config.evaluate.within) for sample in samples],
                "prompt": [sample.prompt for sample in samples],
                "unsteered": [one.text for one in unsteered],
                "text": [one.text for one in texts],
                "replayed": [one.text for one in replayed],
                "n_tokens": [len(one.tokens) for one in texts],
                "n_acted": [sum(a != NO_OP for a in script) for script in scripts],
                "is_same_again": [
                    one.tokens == other.tokens for one, other in zip(texts, replayed, strict=True)
                ],
            }
        )

    def _branches(
        self,
        model: LanguageModel,
        head: PolicyHead,
        candidates: Candidates,
        samples: Sequence[Sample],
        requests: Sequence[Request],
        sampling: Sampling,
        scorer: Scorer,
    ) -> list[dict[str, Any]]:  # Any: values of a table.
        """Outcomes are scores: what a reply is worth beside others is not its own."""
        config = self.config
        if not config.has_text_scores:
            return []
        n = config.evaluate.branches
        few, asked = list(samples[:n]), list(requests[:n])
        acting = Acting(model, head, candidates, asked, is_masked=config.learn.is_masked)
        texts = _generated(model, acting, asked, sampling)
        found = judge_branches(
            model,
            head,
            acting.log(),
            asked,
            few,
            texts,
            text_reward(scorer, None),
            sampling=sampling,
            is_masked=config.learn.is_masked,
        )
        return [branch.row() for branch in found]


def _generated(
    model: LanguageModel,
    acting: Acting | Replay,
    requests: Sequence[Request],
    sampling: Sampling,
) -> list[Generation]:
    with model.intervened(acting):
        return generate(model, requests, sampling=sampling, max_rows=MAX_ROWS)
