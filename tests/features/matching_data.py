"""Dictionaries whose overlap is known."""

import torch

from fluoroscope.features.top_matches import Directions
from fluoroscope.sae.topk import TopK, TopKConfig


def weights(n, d=16, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def directions(n, d=16, seed=0):
    return Directions.of(weights(n, d, seed))


def order_of(n, seed=0):
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))


def sae_of(decoder, encoder):
    sae = TopK(TopKConfig(d_model=decoder.shape[1], d_sae=len(decoder), k=1))
    with torch.no_grad():
        sae.W_dec.copy_(decoder)
        sae.W_enc_T.copy_(encoder)
    return sae
