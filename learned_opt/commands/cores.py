"""Which devices the commands use."""

import os

import jax


def use_cores(devices: int | None) -> None:
    """Makes every core a CPU device, or as many as asked for; before JAX looks at its devices, and of no effect after.

    The number of forced CPU devices leaves accelerators alone.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    jax.config.update("jax_num_cpu_devices", devices or cores)
