"""What families of a single problem, without batches, have in common; weights and loss are their own."""

import jax.numpy as jnp


class OneProblem:
    """Nothing is drawn: every key gives the same problem, and batches are empty of meaning."""

    loss_scale = 1.0

    def sample(self, key):
        return jnp.zeros(())

    def task(self, task_params):
        return self

    def sample_batch(self, key, split):
        return jnp.zeros(())
