"""How often each image is shown, where the number shown in a pass was set: equal steps, whatever the number of images.

Stands between the trainer and the images of its folder. All images lie on a ring, in an order drawn by seed; each pass takes the
next so many of it and shuffles them. So in a pass, and in any number of passes, no image is shown more than once oftener than
another. What pass e of a seed shows follows from the two alone: a resumed training goes on with what it would have shown. Knows
nothing of what the images hold.
"""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler
from ultralytics.data.build import InfiniteDataLoader, seed_worker

PREFETCH = 4             # batches that a worker draws ahead, as the stock loader does in training


class Turns(Sampler[int]):
    """The images of the pass `epoch`."""

    def __init__(self, images: int, shown: int, seed: int) -> None:
        self.ring = np.random.default_rng([seed]).permutation(images)
        self.shown, self.seed, self.epoch = shown, seed, 0

    def __len__(self) -> int:
        return self.shown

    def __iter__(self) -> Iterator[int]:
        due = self.ring[(self.epoch * self.shown + np.arange(self.shown)) % len(self.ring)]
        return iter(np.random.default_rng([self.seed, self.epoch]).permutation(due).tolist())


def loader(dataset: Any, turns: Turns, batch: int, workers: int, pin_memory: bool) -> InfiniteDataLoader:
    """The stock loader with turns of ours. Its batch is never cut to the number of images, as the stock one's is."""
    batches = -(-len(turns) // batch)
    workers = min(os.cpu_count() or 1, workers, batches if batches > 1 else 0)           # the stock rule: none for a single batch
    return InfiniteDataLoader(dataset=dataset, batch_size=batch, sampler=turns, num_workers=workers, worker_init_fn=seed_worker,
                              prefetch_factor=PREFETCH if workers else None, pin_memory=pin_memory, collate_fn=dataset.collate_fn,
                              generator=torch.Generator())
