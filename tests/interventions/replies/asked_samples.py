"""Samples of a made-up task, and its naive replies: one row, one token and one hook at a time."""

from contextlib import nullcontext

import torch

from fluoroscope.data.tasks.samples import Sample, Score, Scorer
from fluoroscope.interventions.replies.answering import Asking
from fluoroscope.models.hook_points import HookPoint

PROMPTS = ["some text to go on from", "ab", "another one: ", "x y and z"]
OPTIONS = [("no", "yes", "?"), ("q",), ("one", "two"), ("left", "right", "middle", "up")]
POOLS = ("max", "mean", "last")


class Told(Scorer):
    """Knows all three ways."""

    ways = ("texts", "options' probabilities", "sums of log-probabilities")

    def score_text(self, sample, text):
        return Score(float(len(text) > 2), True, "its length")

    def score_options(self, sample, probabilities):
        return Score(float(probabilities[0] == max(probabilities)), True, "the first")

    def score_sums(self, sample, sums, n_tokens):
        return Score(float(sums[0] == max(sums)), True, "the first")


def samples(prompts=PROMPTS, options=OPTIONS):
    return [
        Sample(id=f"s{i}", group_id=f"g{i}", prompt=prompt, options=several)
        for i, (prompt, several) in enumerate(zip(prompts, options, strict=True))
    ]


def asking(way, **settings):
    return Asking(Told(), way, max_tokens=settings.pop("max_tokens", 6), **settings)


def adding(vectors, first, seen=None):
    """Hooks that add a vector at every position from `first` on, and note what is there then."""

    def hook_of(point):
        def hook(value):
            edited = value.clone()
            if vectors.get(str(point)) is not None:
                edited[:, first:] += vectors[str(point)]
            if seen is not None:
                seen[str(point)] = edited[0, first:]
            return edited

        return hook

    points = {HookPoint(name) for name in (*vectors, *(seen or ()))}
    return {point: hook_of(point) for point in points}


def scores_of(model, prompt, option, vectors, seen=None):
    """Log-probability of each token of an option behind a prompt, both as tokens."""
    tokens = torch.tensor([[*prompt, *option]])
    hooks = adding(vectors, len(prompt) - 1, seen)
    with torch.no_grad(), model.hooked(hooks) if hooks else nullcontext():
        logprobs = model.forward(tokens)[0].double().log_softmax(-1)
    places = range(len(prompt) - 1, tokens.shape[1] - 1)
    return [float(logprobs[i, tokens[0, i + 1]]) for i in places]


def greedy(model, prompt, n, vectors):
    """Tokens that are the likeliest one after the other; an end token ends them."""
    tokens = list(prompt)
    for _ in range(n):
        with torch.no_grad(), model.hooked(adding(vectors, len(prompt) - 1)):
            tokens.append(int(model.forward(torch.tensor([tokens]))[0, -1].argmax()))
        if tokens[-1] == model.tokenizer.eos_token_id:
            break
    return tokens[len(prompt) :]


def pooled(steps, how):
    return {"max": steps.amax(0), "mean": steps.mean(0), "last": steps[-1]}[how]
