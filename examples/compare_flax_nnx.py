"""Which optimizer for my problem? A Flax NNX network."""

import optax
from flax import nnx
from sklearn.datasets import load_digits

from learned_opt.evaluate import compare

images, labels = load_digits(return_X_y=True)


class Network(nnx.Module):
    """One hidden layer."""

    def __init__(self, rngs):
        """16 hidden units."""
        self.hidden, self.head = nnx.Linear(64, 16, rngs=rngs), nnx.Linear(16, 10, rngs=rngs)

    def __call__(self, x):
        """Logits of the ten digits."""
        return self.head(nnx.relu(self.hidden(x)))


GRAPH = nnx.graphdef(nnx.eval_shape(lambda: Network(nnx.Rngs(0))))


def init(key):
    """Starting weights."""
    return nnx.state(Network(nnx.Rngs(key)), nnx.Param)


def loss(params, batch):
    """Cross-entropy in nats."""
    x, y = batch
    return optax.softmax_cross_entropy_with_integer_labels(nnx.merge(GRAPH, params)(x / 16), y).mean()


if __name__ == "__main__":
    compare(loss, init, (images, labels), ["digits", "schedule-free", "adamw-cosine"], steps=200, seeds=3)
