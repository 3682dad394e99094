"""Labelled images of any TFDS set, opened but not read: `datasets.load` reads them all, `streaming.stream` a few."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from learned_opt import errors
from learned_opt.tasks.base import Split
from learned_opt.tasks.sources import features_of, open_set, split_sources

LUMA = np.array([0.299, 0.587, 0.114])  # of red, green and blue: ITU-R BT.601


@dataclass(frozen=True)
class LabelledImages:
    """The examples of a set, and how they are asked for.

    Attributes:
        sources: for each split, a random-access source of TFDS examples.
        shape: height, width and channels of every image after `decode`.
        size: side of the square that images are resized to; None leaves them as they are.
        grey: whether colours become luma.
    """

    sources: dict[Split, Any]
    shape: tuple[int, int, int]
    size: int | None
    grey: bool

    @property
    def num_bytes(self) -> int:
        """Of all images of all splits, decoded."""
        return sum(map(len, self.sources.values())) * math.prod(self.shape)

    def decode(self, example: dict[str, Any]) -> tuple[np.ndarray, np.int32]:
        """The image, uint8 of `shape`, and the label of one example."""
        image = np.asarray(example["image"])
        if self.grey and image.shape[2] > 1:
            image = np.rint(image[..., :3] @ LUMA).astype(np.uint8)[..., None]
        if self.size is not None:
            image = resized(image, self.size)
        return image, np.int32(example["label"])


def open_images(name: str, size: int | None, grey: bool) -> LabelledImages:
    """Opens the image set `name`.

    Raises:
        UsageError: the name is unknown, the set is not prepared, it has other features, or its images differ in size
            and no `size` is given.
    """
    builder = open_set(name)
    features = features_of(builder)
    image, label = features.get("image"), features.get("label")
    if image is None or label is None or len(image.shape) != 3 or image.np_dtype != np.uint8 or label.shape != ():
        raise errors.UsageError(
            f"data set {name!r} is not one of labelled images: it has {', '.join(features)}; accepted: an image of "
            f"uint8 [height, width, channels] and one label"
        )
    height, width, channels = (size, size, image.shape[2]) if size is not None else image.shape
    channels = 1 if grey else channels
    if None in (height, width, channels):
        raise errors.UsageError(f"data set {name!r} has images of different sizes: give a size to resize them to")
    return LabelledImages(split_sources(name, builder), (height, width, channels), size, grey)


def resized(image: np.ndarray, size: int) -> np.ndarray:
    """The uint8 image `[h, w, c]` as `[size, size, c]`: each pixel the mean over its box."""
    from PIL import Image

    planes = [Image.fromarray(np.ascontiguousarray(plane)) for plane in np.moveaxis(image, 2, 0)]
    return np.stack([np.asarray(plane.resize((size, size), Image.Resampling.BOX)) for plane in planes], axis=2)
