"""Small connections of all forms, for tests."""

import torch

from fluoroscope.core.seeding import derive_seed, torch_stream
from fluoroscope.studies.connection.network.connections.base import CONNECTIONS, make_connection
from fluoroscope.studies.connection.network.network_config import ConnectionConfig

B, N, D = 3, 5, 12
SMALL = {"rank": 3, "n_bases": 2, "k": 2, "n_heads": 2}
BOUNDED = [name for name in CONNECTIONS if CONNECTIONS.load(name).is_bounded]
ALL = [(name, None) for name in CONNECTIONS] + [(name, 0.02) for name in BOUNDED]
"""Every form, and those with a bound once more, with one that all of them exceed."""


def connection_of(name, largest=None, *, d=D, n=N, seed=0, dtype=torch.float64, **settings):
    config = ConnectionConfig(**{"name": name, "largest": largest, **SMALL, **settings})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, name))
        return make_connection(d, n, config).to(dtype)


def slots_of(batch=B, n=N, d=D, *, seed=0, dtype=torch.float64):
    return torch.randn(batch, n, d, generator=torch_stream(seed, "slots"), dtype=dtype)
