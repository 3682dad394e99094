"""The same meta-gradient on any number of devices and processes."""

import functools
import json
import logging
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from learned_opt.errors import UsageError
from learned_opt.meta_train.parallel import Component, OuterSteps, means_over_particles
from learned_opt.meta_train.pes import PES
from learned_opt.meta_train.shaping import Shaping, shape
from learned_opt.meta_train.truncated_backprop import TruncatedBackprop

pytestmark = pytest.mark.usefixtures("quick_programs")
WORKER = Path(__file__).parent / "worker.py"


class Worker:
    """The worker program under way."""

    def __init__(self, output: Path, **arguments: Any) -> None:
        self.output = output
        command = [sys.executable, str(WORKER), json.dumps({"output": str(output), **arguments})]
        self.process = subprocess.Popen(command)

    def result(self, timeout: float = 240) -> dict[str, Any]:
        """Waits for its end; a hang is a failure."""
        try:
            assert self.process.wait(timeout) == 0
        finally:
            self.process.kill()
            self.process.wait()
        return json.loads(self.output.read_text())


@pytest.fixture(scope="module")
def one_device(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return Worker(tmp_path_factory.mktemp("one") / "result", devices=1, steps=3).result()


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """The meta-gradient to 1e-5 of its length; every array of the particles after three steps to 1e-4 of its own."""
    gradient, reference = (
        np.concatenate([np.ravel(x) for x in jax.tree.leaves(r["gradient"])]) for r in (found, expected)
    )
    assert np.linalg.norm(reference) > 0.1
    assert np.linalg.norm(gradient - reference) < 1e-5 * np.linalg.norm(reference)
    for a, b in zip(found["particles"], expected["particles"], strict=True):
        assert np.linalg.norm(np.subtract(a, b)) <= 1e-4 * np.linalg.norm(b)


@pytest.mark.parametrize("devices", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_devices_agree(one_device: dict[str, Any], tmp_path: Path, devices: int) -> None:
    """1, 2 and 4 forced CPU devices."""
    found = Worker(tmp_path / "result", devices=devices, steps=3).result()
    assert found["devices"] == devices
    assert_same(found, one_device)


def test_two_processes_agree(one_device: dict[str, Any], tmp_path: Path) -> None:
    """Two processes with two devices each, under jax.distributed on the loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"
    both = [Worker(tmp_path / str(i), devices=2, steps=3, coordinator=coordinator, process=i) for i in range(2)]
    for found in [worker.result() for worker in both]:
        assert found["devices"] == 4
        assert_same(found, one_device)


def test_queued_steps_do_not_hang(tmp_path: Path) -> None:
    """As many devices as cores, hundreds of steps that nobody waits for."""
    devices = max(n for n in (1, 2, 4, 8) if n <= os.cpu_count())
    found = Worker(tmp_path / "result", devices=devices, steps=400, optimizer="learnable-adam").result(timeout=120)
    assert np.isfinite(found["loss"])


def test_steps_in_one_call_are_those_in_several(chain: Any) -> None:
    """Bit for bit, metrics too, by one program."""
    outer_steps = OuterSteps([Component(PES(unroller=chain(4, 2)), 4)], optax.adam(1e-3))
    key = jax.random.key(1)

    def after(*counts: int) -> Any:
        theta, first, found = {"drift": jnp.zeros(())}, 0, []
        outer, states = outer_steps.init_outer(theta), outer_steps.init(jax.random.key(0), theta)
        for count in counts:
            outer, states, metrics = outer_steps.run(outer, states, key, first, count)
            found += [{name: values[i] for name, values in jax.device_get(metrics).items()} for i in range(count)]
            first += count
        return jax.device_get((outer, outer_steps.gather(states))), found

    expected = after(1, 1, 1, 1, 1, 1, 1)
    for counts in ((7,), (2, 4, 1)):
        jax.tree.map(np.testing.assert_array_equal, after(*counts), expected)


def test_the_second_step_does_not_compile(chain: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Results are placed as arguments are; a restored state too."""
    outer_steps = OuterSteps([Component(PES(unroller=chain(4, 2)), 4)], optax.adam(1e-3))
    theta = {"drift": jnp.zeros(())}
    outer, states = outer_steps.init_outer(theta), outer_steps.init(jax.random.key(0), theta)
    with jax.log_compiles(True), caplog.at_level(logging.WARNING):
        outer, states, _ = outer_steps.step(outer, states, jax.random.key(0))
        assert compilations(caplog) == 1
        outer, states, _ = outer_steps.run(outer, states, jax.random.key(1), 1, 3)
        states = outer_steps.scatter(outer_steps.gather(states))
        outer = outer_steps.replicate(jax.device_get(outer))
        outer_steps.step(outer, states, jax.random.key(2))
        assert compilations(caplog) == 1


def compilations(caplog: pytest.LogCaptureFixture) -> int:
    """Of functions under pmap, which JAX calls `_fun` in its log."""
    return sum(message.startswith("Compiling jit(_fun)") for message in caplog.messages)


def test_dropped_particles_leave_the_mean_of_the_others(chain: Any) -> None:
    """Half of the chains are NaN: the share is reported, and the gradient is the mean over the rest."""
    estimator = PES(unroller=chain(4, 2, broken=0.5))
    theta, keys = {"drift": jnp.zeros(())}, jax.random.split(jax.random.key(0), 64)
    states = jax.vmap(estimator.init, (0, None))(keys, theta)
    estimates, _ = jax.vmap(estimator.estimate, (None, 0, 0))(theta, states, keys)
    gradient, metrics = mean(estimates)
    broken = np.asarray(states.problem.task_params)
    assert 0.3 < broken.mean() < 0.7
    np.testing.assert_array_equal(metrics["dropped"], [[broken.sum()]])
    without = jax.tree.map(lambda x: x[~broken], estimates)
    np.testing.assert_array_equal(gradient["drift"], mean(without)[0]["drift"])
    assert np.isfinite(metrics["loss"]).all()


def mean(estimates: Any) -> tuple[Any, dict[str, Any]]:
    """Over particles on one device."""
    return jax.device_get(jax.pmap(means_over_particles, "devices")((jax.tree.map(lambda x: x[None], estimates),)))


@pytest.mark.parametrize("shaping", ["none", "sign", "rank"])
def test_shaping_is_among_all_particles_of_all_devices(chain: Any, shaping: Shaping) -> None:
    """One, two and four devices, which a named axis stands for, have the mean of the shaped differences."""
    estimator, theta = PES(unroller=chain(4, 2, broken=0.2)), {"drift": jnp.zeros(())}
    keys = jax.random.split(jax.random.key(0), 16)
    states = jax.vmap(estimator.init, (0, None))(keys, theta)
    estimates, _ = jax.vmap(estimator.estimate, (None, 0, 0))(theta, states, keys)
    shaped = shape(estimates.difference, estimates.weight, shaping) * estimates.direction["drift"]
    expected = np.average(shaped, weights=estimates.weight)
    for devices in (1, 2, 4):
        split = jax.tree.map(lambda x, n=devices: x.reshape(n, -1), estimates)
        function = functools.partial(means_over_particles, shaping=shaping)
        gradient, _ = jax.vmap(function, axis_name="devices")((split,))
        np.testing.assert_allclose(gradient["drift"], np.full((devices, 1), expected), rtol=1e-5)


@pytest.mark.parametrize(("normalise", "expected"), [(False, (2.5 + 3 * 3.5) / 4), (True, 1.0)])
def test_components_are_averaged_by_weight(chain: Any, normalise: bool, expected: float) -> None:
    """Chains of 4 and 6 steps, whose gradients are 2.5 and 3.5, with weights 1 and 3 and particles 2 and 5."""
    components = [
        Component(TruncatedBackprop(unroller=chain(4, 4)), 2),
        Component(TruncatedBackprop(unroller=chain(6, 6)), 5, weight=3.0),
    ]
    outer_steps = OuterSteps(components, optax.trace(0.0), normalise_gradients=normalise)
    theta = {"drift": jnp.zeros(())}
    outer, states = outer_steps.init_outer(theta), outer_steps.init(jax.random.key(0), theta)
    outer, states, metrics = outer_steps.step(outer, states, jax.random.key(1))
    np.testing.assert_allclose(outer.opt_state.trace["drift"], expected, rtol=1e-6)
    np.testing.assert_allclose(metrics["gradient_norm_of_family"], [2.5, 3.5], rtol=1e-6)
    np.testing.assert_array_equal(metrics["inner_steps"], [2 * 4, 5 * 6])
    assert [jax.tree.leaves(state)[0].shape[:2] for state in states] == [(1, 2), (1, 5)]


def test_particles_must_divide_among_devices(chain: Any) -> None:
    """One line that says which device counts would do."""
    device = jax.devices()[0]
    with pytest.raises(UsageError, match="9 particles cannot be shared equally by 4 devices"):
        OuterSteps([Component(PES(unroller=chain(4, 2)), 9)], optax.sgd(1.0), devices=[device] * 4)
