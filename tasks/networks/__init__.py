"""Networks of the inner tasks, in Flax NNX."""
