"""Classification of the nodes of a graph by graph convolutions (Kipf and Welling 2016, arXiv 1609.02907)."""

import math
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from learned_opt.tasks.base import SPLITS, Batch, Split
from learned_opt.tasks.network_family import NetworkFamily, Predict
from learned_opt.tasks.networks.architecture import Activation, Architecture, architecture

SEED = 0


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Graph:
    """Labelled nodes and how they are joined.

    Attributes:
        features: float32 `[nodes, features]`.
        adjacency: float32 `[nodes, nodes]`, D^-1/2 (A + I) D^-1/2 with the degrees D of A + I.
        labels: int32 `[nodes]`.
        nodes: which nodes belong to each split, int32.
    """

    features: Any
    adjacency: Any
    labels: Any
    nodes: dict[Split, Any]
    num_classes: int = field(metadata={"static": True})

    def sample_batch(self, key: jax.Array, split: Split, batch_size: int) -> Batch:
        """Nodes of one split, drawn with replacement."""
        return jax.random.choice(key, jnp.asarray(self.nodes[split]), (batch_size,))


def block_model(
    communities: int = 4, size: int = 32, inside: float = 0.3, between: float = 0.05, features: int = 16
) -> Graph:
    """A stochastic block model: nodes are joined with probability `inside` or `between` their communities.

    Features are standard normal about the centre of the community, itself normal, of deviation 1/2. Half of the nodes
    are for training, a quarter each for validation and test. Always the same graph for the same arguments.
    """
    rng = np.random.RandomState(SEED)
    nodes = communities * size
    labels = np.repeat(np.arange(communities), size).astype(np.int32)
    probability = np.where(labels[:, None] == labels, inside, between)
    upper = np.triu(rng.random_sample((nodes, nodes)) < probability, 1)
    joined = upper + upper.T + np.eye(nodes)
    root = np.sqrt(joined.sum(1))
    centres = 0.5 * rng.standard_normal((communities, features))
    values = centres[labels] + rng.standard_normal((nodes, features))
    order = np.split(rng.permutation(nodes).astype(np.int32), (nodes // 2, nodes * 3 // 4))
    return Graph(
        values.astype(np.float32),
        (joined / root / root[:, None]).astype(np.float32),
        labels,
        dict(zip(SPLITS, order, strict=True)),
        communities,
    )


class GraphConvolutions(nnx.Module):
    """Two linear layers, each followed by a mean over neighbours, with an activation between them."""

    def __init__(self, shape: tuple[int, ...], outputs: int, rngs: nnx.Rngs, hidden: int = 16) -> None:
        """`shape` is the number of features alone."""
        self.hidden = nnx.Linear(shape[0], hidden, rngs=rngs)
        self.out = nnx.Linear(hidden, outputs, rngs=rngs)

    def __call__(self, graph: Graph, activation: Activation, key: jax.Array) -> jax.Array:
        """Logits of every node, `[nodes, outputs]`."""
        adjacency = jnp.asarray(graph.adjacency)
        x = activation(adjacency @ self.hidden(jnp.asarray(graph.features)))
        return adjacency @ self.out(x)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class NodeClassification(NetworkFamily):
    """A network that labels the nodes of a graph from all nodes' features; a batch is the nodes that count."""

    network: Architecture = field(default=architecture(GraphConvolutions), metadata={"static": True})

    @property
    def loss_scale(self) -> float:
        """The loss of a uniform guess, in nats."""
        return math.log(self.data.num_classes)

    def sizes(self) -> tuple[tuple[int, ...], int]:
        """The number of features, and that of classes."""
        return self.data.features.shape[1:], self.data.num_classes

    def loss(self, predict: Predict, batch: Batch) -> jax.Array:
        """Mean softmax cross-entropy in nats."""
        log_probabilities = jax.nn.log_softmax(predict(self.data)[batch])
        return -jnp.take_along_axis(log_probabilities, jnp.asarray(self.data.labels)[batch][:, None], 1).mean()
