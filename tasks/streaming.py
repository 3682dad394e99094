"""Images and text too large for the device: shuffled batches read as they are needed, with Grain."""

import grain
import numpy as np

from learned_opt.tasks.base import Split
from learned_opt.tasks.pixels import open_images
from learned_opt.tasks.texts import open_text


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


def stream_text(name: str, split: Split, batch_size: int, length: int, seed: int) -> grain.DatasetIterator:
    """Endless batches of windows int32 `[batch_size, length + 1]`: `length` bytes and their nexts.

    Every record of the split starts one window in each epoch, at a random byte of it, which reads on into the records
    that follow. State and `seed` are those of `stream`; sets and splits those of `datasets.load_text`, without its
    limit.

    Raises:
        UsageError: as `datasets.load_text` does.
    """
    text = open_text(name)
    source = text.sources[split]

    def window(record: int, rng: np.random.Generator) -> np.ndarray:
        read = text.decode(source[record])
        read = read[rng.integers(max(len(read), 1)) :]
        while len(read) <= length:
            record = (record + 1) % len(source)
            read = np.concatenate([read, text.decode(source[record])])
        return read[: length + 1].astype(np.int32)

    records = grain.MapDataset.source(range(len(source))).seed(seed).shuffle().repeat()
    return iter(records.random_map(window).batch(batch_size).to_iter_dataset())
