"""Processes that share a training, as threads: their sums are made in a list."""

import threading

import torch

from fluoroscope.models.training.acceleration import Acceleration


class Threaded(Acceleration):
    def __init__(self, rank, shared, barrier):
        super().__init__("float32", "cpu")
        self.n_processes, self.rank = len(shared), rank
        self._shared, self._barrier = shared, barrier

    def total(self, values):
        self._shared[self.rank] = values.clone()
        self._barrier.wait()
        total = torch.stack(self._shared).sum(dim=0)
        self._barrier.wait()
        return total


def trained_together(trainers):
    """What each of these trainers of one training gives, when each is of one process."""
    shared, barrier, found = [None] * len(trainers), threading.Barrier(len(trainers)), {}

    def work(rank):
        try:
            trainers[rank]._mates = Threaded(rank, shared, barrier)
            found[rank] = trainers[rank].train()
        except BaseException:
            barrier.abort()
            raise

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(len(trainers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == len(trainers)
    return [found[rank] for rank in range(len(trainers))]
