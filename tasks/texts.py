"""Text of any TFDS set, opened but not read: `datasets.load_text` reads it all, `streaming.stream_text` a little."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from learned_opt import errors
from learned_opt.tasks.base import Split
from learned_opt.tasks.sources import features_of, open_set, split_sources


@dataclass(frozen=True)
class OpenedText:
    """The records of a set.

    Attributes:
        sources: for each split, a random-access source of TFDS examples.
        feature: which of an example's features is the text.
        num_bytes: about how many, of all splits.
    """

    sources: dict[Split, Any]
    feature: str
    num_bytes: int

    def decode(self, example: dict[str, Any]) -> np.ndarray:
        """The bytes of one example, uint8."""
        text = example[self.feature]
        return np.frombuffer(text, np.uint8) if isinstance(text, bytes) else text


def open_text(name: str) -> OpenedText:
    """Opens the text `name`.

    Raises:
        UsageError: the name is unknown, the set is not prepared, or has no text.
    """
    builder = open_set(name)
    features = features_of(builder)
    key = next((k for k in ("text", "tokens") if k in features and features[k].np_dtype in (object, np.uint8)), None)
    if key is None:
        raise errors.UsageError(
            f"data set {name!r} is not one of text: it has {', '.join(features)}; accepted: text, or tokens of uint8"
        )
    return OpenedText(split_sources(name, builder), key, builder.info.dataset_size)
