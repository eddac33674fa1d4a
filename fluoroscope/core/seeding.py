"""One seed -> any number of named, independent, counter-based random streams.

A stream is known by its name, never by how often somebody drew before: `stream(seed, "games",
17)` is the same numbers in whichever process, order or batch row 17 is worked on. Names are
hashed with SHA-256 into the key of a Philox generator (Salmon et al. 2011), whose streams for
different keys are independent.
"""

import hashlib
import json

import numpy as np
import torch

Name = str | int


def derive_seed(seed: int, *names: Name) -> int:
    """A 63-bit seed for the stream called `names`."""
    digest = hashlib.sha256(json.dumps([seed, *names]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def stream(seed: int, *names: Name) -> np.random.Generator:
    """The numpy stream called `names`."""
    return np.random.Generator(np.random.Philox(key=derive_seed(seed, *names)))


def torch_stream(seed: int, *names: Name, device: torch.device | str = "cpu") -> torch.Generator:
    """The torch stream called `names`; CPU and CUDA draw different numbers from one seed."""
    return torch.Generator(device=device).manual_seed(derive_seed(seed, *names))
