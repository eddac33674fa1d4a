"""Whole groups of examples, drawn so that each class has about its share."""

from collections import Counter
from collections.abc import Mapping, Sequence

from fluoroscope.core.seeding import stream
from fluoroscope.data.labelled.example import Example


def some_groups(examples: Sequence[Example], n: int, seed: int, purpose: str) -> set[str]:
    """Groups of at most `n` examples together; the order of rows plays no part. A group counts
    towards the class that most of it has.
    """
    groups: dict[str, list[int]] = {}
    for one in examples:
        groups.setdefault(one.group_id, []).append(one.label)
    strata: dict[int, list[str]] = {}
    for group in sorted(groups):
        labels = Counter(groups[group])
        common = min(labels, key=lambda label: (-labels[label], label))
        strata.setdefault(common, []).append(group)
    sizes = {label: sum(len(groups[g]) for g in strata[label]) for label in sorted(strata)}
    taken: set[str] = set()
    for label, quota in _quotas(sizes, n).items():
        left = quota
        for place in stream(seed, purpose, label).permutation(len(strata[label])).tolist():
            group = strata[label][place]
            if len(groups[group]) <= left:
                taken.add(group)
                left -= len(groups[group])
    return taken


def _quotas(sizes: Mapping[int, int], n: int) -> dict[int, int]:
    """`n` in the proportions of `sizes` by largest remainders; no class has 0 while `n` allows."""
    total = sum(sizes.values())
    shares = {label: n * size / total for label, size in sizes.items()}
    quotas = {label: int(share) for label, share in shares.items()}
    for label in sorted(sizes, key=lambda label: (quotas[label] - shares[label], label)):
        if sum(quotas.values()) < n:
            quotas[label] += 1
    for label in sizes:
        largest = max(quotas, key=lambda other: quotas[other])
        if quotas[label] == 0 and quotas[largest] > 1:
            quotas[label], quotas[largest] = 1, quotas[largest] - 1
    return quotas
