"""A small `Material` whose latents, activations and validation side are made up, for methods.

Two hook points of a tiny random model. At each, latent `GOOD` goes with success and latent `BAD`
with failure. Only what is added along the good latent of `LATE` helps on the validation side, so
the pick at `EARLY` is a mere correlate.
"""

import numpy as np
from scipy.sparse import csr_array

from fluoroscope.data.tasks.samples import Sample
from fluoroscope.features.correlation import OutcomeMoments
from fluoroscope.features.correlation_outcomes import Outcomes
from fluoroscope.features.correlation_selection import latent_table
from fluoroscope.models.tiny import tiny_model
from fluoroscope.sae.topk import TopK, TopKConfig
from fluoroscope.studies.steering.material import Material
from fluoroscope.studies.steering.recipes import Recipe

EARLY, LATE = "0.resid_post", "1.resid_post"
GOOD, BAD, D_SAE, WIDTH = 5, 9, 24, 16
N, N_VALIDATION = 240, 100


def recipe(method, **settings):
    return Recipe(name=settings.pop("name", method), method=method, **settings)


class MadeUp(Material):
    """`moved` is by how much all latents of `LATE` rise when they are measured again; `helps` are
    the hook points at which the good direction helps, by 0.1 a unit where nothing else is said;
    `towards` is the score that is aimed at."""

    def __init__(
        self,
        outcomes=None,
        moved=0.0,
        helps=(LATE,),
        instruction="",
        latents=None,
        towards=None,
    ):
        self.model = tiny_model("gpt2")
        self.saes = {
            point: TopK(TopKConfig(d_model=WIDTH, d_sae=D_SAE, k=4), seed=i)
            for i, point in enumerate((EARLY, LATE))
        }
        self.seed, self.instruction = 3, instruction
        random = np.random.default_rng(0)
        self._y = (random.random(N) < 0.5).astype(float) if outcomes is None else outcomes
        self._moved, self.towards = moved, towards
        self._helps = helps if isinstance(helps, dict) else dict.fromkeys(helps, 0.1)
        self.latents = {point: self._pooled(random) for point in self.saes}
        self.latents = latents or self.latents
        self._dense = {point: self._activations(point, random) for point in self.saes}
        self._noise = 0.05 * random.normal(size=N_VALIDATION)
        self.judged = []
        self._tables = {}
        self.measured = []

    def _pooled(self, random):
        drive = random.normal(size=(N, D_SAE)) - 0.3
        drive[:, GOOD] += 2 * self._y
        drive[:, BAD] += 2 * (1 - self._y)
        return np.maximum(drive, 0)

    def _activations(self, point, random):
        good = self.good(point)
        # A strong direction that tells nothing hides the one that does.
        loud = np.eye(WIDTH)[0] - good[0] * good
        x = random.normal(size=(N, WIDTH)) + 3 * np.outer(self._y, good)
        return x + 1.5 * random.normal(size=(N, 1)) * loud + 10

    def good(self, point):
        return self.saes[point].W_dec[GOOD].detach().double().numpy()

    def table(self, pool, samples=None):
        n = samples or N
        if n not in self._tables:
            outcomes = Outcomes(self._y[:n], n_shuffles=20, n_resamples=0)
            found = {p: _moments(x[:n], outcomes) for p, x in self.latents.items()}
            self._tables[n] = latent_table(found)
        return self._tables[n]

    def outcomes(self, samples=None):
        return self._y[: samples or N]

    def groups(self, samples=None):
        return [f"group {i // 2}" for i in range(samples or N)]

    @property
    def threshold(self):
        return 0.5

    def dense(self, point, samples=None):
        return self._dense[str(point)][: samples or N]

    @property
    def validation(self):
        return [
            Sample(id=f"v{i}", group_id=f"g{i // 4}", prompt="A question.")
            for i in range(N_VALIDATION)
        ]

    def judge(self, edits, instruction=""):
        self.judged.append(edits)
        helped = 0.0
        for point, several in edits.items():
            (added,) = several
            write = added.coefficient * added.direction.double().numpy()
            helped += self._helps.get(str(point), 0.0) * float(write @ self.good(str(point)))
        # Every judgement has its own luck, as a model's replies have.
        luck = np.roll(self._noise, 7 * len(self.judged)) if edits else np.zeros(N_VALIDATION)
        return 0.5 + helped + self._noise + luck

    def remeasure(self, point, edits, pool):
        self.measured.append((str(point), edits))
        n = N // 2
        x = self.latents[str(point)][:n] + self._moved
        outcomes = Outcomes(self._y[:n], n_shuffles=20, n_resamples=0)
        return latent_table({str(point): _moments(x, outcomes)})


def _moments(x, outcomes):
    found = OutcomeMoments(D_SAE, outcomes)
    found.add(np.arange(len(x)), csr_array(x))
    return found


def good_share(part, material):
    """Cosine of a part's direction with the planted one."""
    direction = part.direction.double().numpy()
    return float(direction @ material.good(str(part.point)) / np.linalg.norm(direction))
