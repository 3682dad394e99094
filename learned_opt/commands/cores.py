"""Which devices the commands use, and what XLA makes for CPUs among them."""

import os

import jax

# STAR's update is bound by arithmetic, and XLA takes vectors of 256 bits where processors have 512. Loops over few
# bytes, of random numbers above all, become one program where XLA has one for every operation in them.
FOR_CPU = (
    "--xla_cpu_prefer_vector_width=512",
    "--xla_backend_extra_options=xla_cpu_small_while_loop_byte_threshold=65536",
)


def use_cores(devices: int | None) -> None:
    """Makes every core a CPU device, or as many as asked for; before JAX looks at its devices, and of no effect after.

    The number of forced CPU devices leaves accelerators alone. What `XLA_FLAGS` says already has the last word.
    """
    os.environ["XLA_FLAGS"] = " ".join([*FOR_CPU, os.environ.get("XLA_FLAGS", "")])
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    jax.config.update("jax_num_cpu_devices", devices or cores)
