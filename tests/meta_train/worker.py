"""Run as a program: advances STAR's particles on forced CPU devices, alone or as one of two processes.

Arguments, as JSON: output (a file), devices (of this process), steps, and for two processes: coordinator and process.
Writes, as JSON, the meta-gradient of the first step and the gathered particles after the last one.
"""

import json
import sys
from pathlib import Path

import jax
import numpy as np
import optax

from learned_opt import registry
from learned_opt.meta_train.horizons import Horizons
from learned_opt.meta_train.objective import MetaObjective
from learned_opt.meta_train.parallel import Component, OuterSteps
from learned_opt.meta_train.perturbation import Perturbation
from learned_opt.meta_train.pes import PES
from learned_opt.meta_train.presets import STAR_OPTIONS
from learned_opt.meta_train.unroll import Unroller
from learned_opt.tasks import registry as tasks


def main(
    output: str,
    devices: int,
    steps: int,
    optimizer: str = "star",
    coordinator: str = "",
    process: int = 0,
) -> None:
    jax.config.update("jax_num_cpu_devices", devices)
    if coordinator:
        jax.distributed.initialize(coordinator, num_processes=2, process_id=process)
    # Scales of the presets and a large sigma: otherwise the pair differs by little more than float32 can tell.
    learned = registry.make(optimizer, STAR_OPTIONS if optimizer == "star" else {})
    unroller = Unroller(
        family=tasks.family("digits-mlp-reparametrised"),
        optimizer=learned,
        objective=MetaObjective(),
        truncation=3,
        horizons=Horizons(shortest=6, longest=12),
    )
    # Without decay, the trace in the state of the outer optimizer is the last meta-gradient.
    outer_steps = OuterSteps(
        [Component(PES(unroller=unroller, perturbation=Perturbation(sigma=0.1)), particles=8)],
        optax.chain(optax.trace(0.0), optax.scale(-1e-3)),
    )
    key = jax.random.key(0)
    theta = learned.init(key)
    outer, states = outer_steps.init_outer(theta), outer_steps.init(key, theta)
    gradient = None
    for step in range(steps):
        outer, states, metrics = outer_steps.run(outer, states, key, step, 1)  # nobody waits for it
        if step == 0:
            gradient = jax.device_get(outer.opt_state[0].trace)
    found = {
        "devices": len(outer_steps.devices),
        "loss": float(metrics["loss"][0, 0]),
        "gradient": jax.tree.map(np.ndarray.tolist, gradient),
        "particles": [x.tolist() for x in jax.tree.leaves(outer_steps.gather(states))],
    }
    Path(output).write_text(json.dumps(found))


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
