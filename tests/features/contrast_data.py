"""Small sparse data for the tests of contrasts: ties, dead and constant latents, odd clusters."""

import numpy as np
from scipy.sparse import csc_array

from fluoroscope.features.rows import Rows

DEAD, EVEN = 3, 5


def made(n=400, d_sae=24, n_clusters=90, seed=0):
    """Latents [n, d_sae] (dense, float32) and rows; clusters from one row to a dozen."""
    random = np.random.default_rng(seed)
    cluster = np.concatenate([np.arange(n_clusters), random.integers(n_clusters // 2, size=n)])[:n]
    of_cluster = random.normal(size=(n_clusters, d_sae))[cluster]
    drive = random.normal(size=(n, d_sae)) + of_cluster - random.uniform(-0.5, 3, d_sae)
    # Rounded, so that there are many ties.
    latents = np.round(np.maximum(drive, 0), 1).astype(np.float32)
    latents[:, DEAD] = 0
    latents[:, EVEN] = 0.3
    strata = np.arange(n_clusters) % 3
    label = random.random(n_clusters) < 0.3
    covariates = random.normal(size=(n, 2)) + label[cluster][:, None] * [0.5, 0]
    # A constant and a sum of the others say nothing more.
    covariates = np.column_stack([covariates, np.full(n, 7.0), covariates @ [2, -1]])
    return latents, Rows(label[cluster], cluster * 7 + 3, covariates, strata[cluster])


def sparse(latents):
    return csc_array(latents)
