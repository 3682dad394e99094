"""Image sets too large for the device: shuffled batches read as they are needed, with Grain."""

import grain

from learned_opt.tasks.base import Split
from learned_opt.tasks.pixels import open_images


def stream(
    name: str, split: Split, batch_size: int, seed: int, size: int | None = None, grey: bool = False
) -> grain.DatasetIterator:
    """Endless batches of NumPy arrays: images uint8 `[batch_size, height, width, channels]`, labels int32.

    Every epoch is another shuffle, and all follow from `seed`. The iterator's `get_state()` is a small dictionary fit
    for JSON; `set_state` of it, on a stream with the same arguments, continues with the very next batch. Sets, splits,
    `size` and `grey` are those of `datasets.load`, without its limit. 128 images of 32 x 32 take some 50 ms on two
    busy cores.

    Raises:
        UsageError: as `datasets.load` does.
    """
    images = open_images(name, size, grey)
    examples = grain.MapDataset.source(images.sources[split]).seed(seed).shuffle().repeat()
    batches = examples.map(images.decode).batch(batch_size)
    return iter(batches.to_iter_dataset())
