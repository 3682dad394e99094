"""Continues the meta-training of shipped weights on a problem of one's own, and compares before and after.

    python examples/finetune.py

A task with a name needs no program: `learned-opt train finetune --tasks NAME`; docs/tasks.md says how yours gets one.
"""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_breast_cancer

from learned_opt.evaluate import compare
from learned_opt.evaluate.problem import problem
from learned_opt.meta_train import presets
from learned_opt.meta_train.start import start_from
from learned_opt.meta_train.trainer import MetaTrainer
from learned_opt.tasks import registry
from learned_opt.tasks.entry import Entry

START = "digits"  # pretrained weights or a run directory
features, labels = load_breast_cancer(return_X_y=True)
features = (features - features.mean(0)) / features.std(0)


def init(key):
    """Starting weights of one hidden layer of 16."""
    keys = jax.random.split(key)
    return {"hidden": jax.random.normal(keys[0], (30, 16)) / 30**0.5, "out": jax.random.normal(keys[1], (16,)) / 4}


def loss(params, batch):
    """Cross-entropy in nats."""
    x, y = batch
    return optax.sigmoid_binary_cross_entropy(jnp.tanh(x @ params["hidden"]) @ params["out"], y).mean()


def make():
    """The problem as a task family."""
    return problem(loss, init, (features, labels), batch_size=64)


TASK = Entry("cells-mine", make, "cells", initial_loss=(0.5, 1.2), adam_lowers=0.1)


def finetune(run_dir, **changes):
    """Meta-trains on batches of the problem, and returns theta; given again, it resumes."""
    registry.register(TASK)
    config = dataclasses.replace(presets.finetune(), tasks=("cells-mine",), max_horizon=400, **changes)
    return MetaTrainer(start_from(config, START), Path(run_dir)).train()


if __name__ == "__main__":
    finetune("runs/cells")
    compare(loss, init, (features, labels), ["runs/cells", START, "adamw-cosine"], steps=400)
