"""Autoencoders: perceptrons that give the logits of their input, and what the code costs."""

import jax
import jax.numpy as jnp
from flax import nnx

from learned_opt.tasks.networks.architecture import Activation
from learned_opt.tasks.networks.mlp import MLP


class Autoencoder(nnx.Module):
    """Two perceptrons with a narrow code between them."""

    def __init__(
        self, shape: tuple[int, ...], outputs: int, rngs: nnx.Rngs, hidden: tuple[int, ...] = (32,), latent: int = 8
    ) -> None:
        """`hidden` holds the widths of the encoder; the decoder has them in reverse."""
        self.encoder = MLP(shape, latent, rngs, hidden)
        self.decoder = MLP((latent,), outputs, rngs, hidden[::-1])

    def __call__(self, images: jax.Array, activation: Activation, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Logits `[batch, outputs]`, and zeros: a code that costs nothing."""
        encoder_key, decoder_key = jax.random.split(key)
        code = self.encoder(images, activation, encoder_key)
        return self.decoder(code, activation, decoder_key), jnp.zeros(images.shape[0])


class VAE(nnx.Module):
    """A variational autoencoder (Kingma and Welling 2013, arXiv 1312.6114): a normal code, sampled once."""

    def __init__(
        self, shape: tuple[int, ...], outputs: int, rngs: nnx.Rngs, hidden: tuple[int, ...] = (32,), latent: int = 8
    ) -> None:
        """`hidden` holds the widths of the encoder; the decoder has them in reverse."""
        self.encoder = MLP(shape, 2 * latent, rngs, hidden)
        self.decoder = MLP((latent,), outputs, rngs, hidden[::-1])

    def __call__(self, images: jax.Array, activation: Activation, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Logits `[batch, outputs]`, and the KL divergence of each code from a standard normal in nats `[batch]`."""
        encoder_key, code_key, decoder_key = jax.random.split(key, 3)
        mean, log_variance = jnp.split(self.encoder(images, activation, encoder_key), 2, axis=1)
        code = mean + jnp.exp(log_variance / 2) * jax.random.normal(code_key, mean.shape)
        kl = 0.5 * jnp.sum(jnp.square(mean) + jnp.exp(log_variance) - log_variance - 1, axis=1)
        return self.decoder(code, activation, decoder_key), kl
