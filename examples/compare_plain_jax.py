"""Which optimizer for my problem? Logistic regression in plain JAX."""

import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_breast_cancer

from learned_opt.evaluate import compare

features, labels = load_breast_cancer(return_X_y=True)
features = (features - features.mean(0)) / features.std(0)


def init(key):
    """Starting weights."""
    return {"w": 0.1 * jax.random.normal(key, (30,)), "b": jnp.zeros(())}


def loss(params, batch):
    """Cross-entropy in nats."""
    x, y = batch
    return optax.sigmoid_binary_cross_entropy(x @ params["w"] + params["b"], y).mean()


if __name__ == "__main__":
    compare(loss, init, (features, labels), ["digits", "muon", optax.sgd(0.1, momentum=0.9)], steps=200, seeds=3)
