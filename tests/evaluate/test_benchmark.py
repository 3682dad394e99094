import dataclasses
import json
import os
import subprocess
import sys
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from learned_opt.adam import LearnableAdam
from learned_opt.errors import UsageError
from learned_opt.evaluate import batch, benchmark, contenders
from learned_opt.tasks.delay import DelayedGradients
from learned_opt.tasks.training import InnerState

TASKS = ("tiny", "tiny-reparametrised")


def loop(family, optimizer, draws, seed, steps):
    """Inner training as anybody would write it: losses and final weights."""
    task_params, params = jax.tree.map(lambda x: jnp.asarray(x[seed]), (draws.task_params, draws.params))
    task = family.task(task_params)
    key = jax.random.wrap_key_data(draws.train_key[seed])
    state, losses = optimizer.init(params), []
    gradient = jax.jit(jax.value_and_grad(task.loss))
    for step in range(steps):
        batch_key, loss_key = jax.random.split(jax.random.fold_in(key, step))
        loss, grads = gradient(params, loss_key, task.sample_batch(batch_key, "train"))
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        losses.append(loss)

    def evaluated(batches):
        of_seed = jax.tree.map(lambda x: x[seed], batches)
        return np.mean(jax.vmap(lambda batch: task.loss(params, key, batch))(of_seed))

    return np.array(losses), evaluated(draws.valid_batches), evaluated(draws.test_batches)


def draws_of(suite, task, seeds=3):
    key = jax.random.fold_in(jax.random.key(benchmark.KEY), zlib.crc32(task.encode()))
    return batch.draw(suite.tasks[task], key, seeds)


@pytest.mark.parametrize("task", TASKS)
def test_adam_is_a_plain_loop_of_optax_adam(results, suite, task):
    run = results.runs[task]["adam"]
    for seed in (0, 2):
        losses, valid_loss, test_loss = loop(suite.tasks[task], optax.adam(1e-3), draws_of(suite, task), seed, 20)
        np.testing.assert_allclose(run.longest.losses[seed], losses, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(run.scores[20].test_loss[seed], test_loss, rtol=1e-5)
        np.testing.assert_allclose(run.scores[20].valid_loss[seed], valid_loss, rtol=1e-5)
        assert run.longest.valid_losses[seed, -1] == np.float32(run.scores[20].valid_loss[seed])


def test_late_gradients_are_late(suite):
    family = DelayedGradients(suite.tasks["tiny"], longest=2)
    draws = batch.draw(family, jax.random.key(0), 3)
    delays = draws.task_params[1]
    assert len(set(delays.tolist())) > 1
    program = batch.program(contenders.parse("sgd").optimizer, tuple(jax.local_devices()))
    runs = batch.Runs(program, [np.float32(0.1)], family, draws, 8)
    runs.train_to(8)

    def late(steps):
        """Plain gradient descent on the gradients of `steps` ago."""
        return optax.GradientTransformation(
            lambda params: [jax.tree.map(jnp.zeros_like, params)] * steps,
            lambda grads, held, params: (jax.tree.map(lambda g: -0.1 * g, [*held, grads][0]), [*held, grads][1:]),
        )

    for seed, steps in enumerate(delays):
        losses, *_ = loop(family, late(steps), draws, seed, 8)
        np.testing.assert_allclose(runs.training_losses()[0, seed], losses, rtol=1e-5)


@pytest.mark.parametrize("task", TASKS)
def test_common_random_numbers(results, task):
    curves = {label: run.longest.losses for label, run in results.runs[task].items()}
    np.testing.assert_array_equal(curves["adam"], curves["adam@1e-3"])
    np.testing.assert_allclose(curves["meta"], curves["adam"], rtol=1e-5)  # by another program, among other runs
    np.testing.assert_array_equal(curves["adam@1e38"][:, 0], curves["adam"][:, 0])
    assert len(np.unique(curves["adam"][:, 0])) == 3  # seeds differ


def test_a_seed_does_not_depend_on_how_many_there_are(suite):
    one, three = draws_of(suite, "tiny", 1), draws_of(suite, "tiny", 3)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[0], b[0]), one, three)


def test_baselines_are_added_and_tuned_adam_is_the_best_rate(results):
    assert [c.label for c in results.contenders] == ["meta", "adam@1e-3", "adam@1e38", "adam", "adam-tuned"]
    for runs in results.runs.values():
        for horizon in results.horizons:
            tuned = runs["adam-tuned"].scores[horizon]
            assert tuned.final_loss.mean() == tuned.sweep.min()
            assert tuned.sweep[7] == runs["adam"].scores[horizon].final_loss.mean()
            assert tuned.rate == runs["adam-tuned"].rates[tuned.best]
            assert runs["adam"].scores[horizon].sweep.shape == (1,)


def test_divergence_is_counted(results):
    for horizon in results.horizons:
        assert results.divergence_rate("adam@1e38", horizon) == 1
        assert results.divergence_rate("adam", horizon) == 0
        assert results.arithmetic_mean("adam@1e38", horizon) == np.inf
        assert results.geometric_mean("adam@1e38", horizon, "test_loss") == np.inf
    assert results.lost_to_tuned_adam("adam@1e38", "final_loss") == {task: [12, 20] for task in TASKS}


def test_progress_counts_every_run_once(results, reports):
    total = 2 * (1 + 15 + 1) * 3 * 20  # tasks, thetas (adam and adam@1e-3 are in the sweep), seeds, steps
    assert reports[0] == (0, total)
    assert reports[-1] == (total, total)
    assert reports == sorted(reports)


def test_time_is_measured(results):
    for runs in results.runs.values():
        assert runs["adam"].seconds_per_step == runs["adam-tuned"].seconds_per_step
        assert 0 < runs["adam"].seconds_per_step < 0.1  # compilation would make it longer
        assert {run.side_by_side for run in runs.values()} == {-(-3 // jax.local_device_count())}


@dataclasses.dataclass(frozen=True)
class Traced(LearnableAdam):
    def transform(self, theta):
        traces.append(theta)
        return super().transform(theta)


traces = []


def test_another_theta_compiles_nothing(suite):
    def curve(theta):
        program = batch.program(Traced(), tuple(jax.local_devices()))
        runs = batch.Runs(program, [theta], suite.tasks["tiny"], draws_of(suite, "tiny"), 5)
        runs.train_to(5)
        return runs.training_losses()

    theta = Traced().init(jax.random.key(0))
    before, count = curve(theta), len(traces)
    after = curve(theta | {"learning_rate": jnp.ones(())})
    assert 0 < count == len(traces)
    assert before.shape == (1, 3, 5)
    assert not np.allclose(before, after)


@pytest.mark.parametrize("name", ["train", "evaluate"])
def test_in_turn_is_side_by_side(suite, name):
    devices = tuple(jax.local_devices())
    thetas = [np.float32(rate) for rate in (1e-3, 1e-2)]
    found = []
    for in_turn in (False, True):
        program = batch.program(contenders.parse("adam").optimizer, devices, in_turn)
        runs = batch.Runs(program, thetas, suite.tasks["tiny"], draws_of(suite, "tiny"), 5)
        runs.train_to(5)
        found.append(runs.training_losses() if name == "train" else runs.evaluated("valid"))
    np.testing.assert_allclose(*found, rtol=1e-5)
    assert found[0].shape[:2] == (2, 3)


SCRIPT = """
import json, sys, jax
sys.path.insert(0, sys.argv[1])
from conftest import tiny_tasks
from learned_opt.evaluate import benchmark, contenders
from learned_opt.evaluate.suites import Suite
suite = Suite("one", "", lambda: {"tiny": tiny_tasks()["tiny"]})
results = benchmark.run(suite, [contenders.parse("adam@2e-3"), contenders.parse("adam@4e-3")], 1, (10, 20))
runs = results.runs["tiny"]
losses = [(r.longest.losses, r.scores[10].sweep, r.scores[20].test_loss) for r in runs.values()]
values = [[x.tolist() for x in of_one] for of_one in losses]
print(json.dumps([jax.local_device_count(), results.cells, values]))
"""


@pytest.mark.usefixtures("quick_programs")
def test_the_number_of_devices_changes_nothing():
    """16 runs after 1, which 3 devices do not share equally."""
    outputs = []
    for devices in (1, 2, 3):
        environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(devices), "JAX_PLATFORMS": "cpu"}
        command = [sys.executable, "-c", SCRIPT, os.path.dirname(__file__)]
        finished = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        outputs.append(json.loads(finished.stdout.splitlines()[-1]))
    ran = {"ran": 17, "cached": 0, "damaged": 0}
    assert [output[:2] for output in outputs] == [[1, ran], [2, ran], [3, ran]]
    for _, _, values in outputs[1:]:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), values, outputs[0][2])


def test_schedule_free_optimizers_are_tested_where_they_stand():
    optimizer = optax.contrib.schedule_free_sgd(0.1)
    params = {"w": jnp.ones(3)}
    state = optimizer.init(params)
    for _ in range(3):
        updates, state = optimizer.update(params, state, params)
        params = optax.apply_updates(params, updates)
    expected = optax.contrib.schedule_free_eval_params(state, params)
    assert not np.allclose(expected["w"], params["w"])
    np.testing.assert_array_equal(batch._evaluated(InnerState(params, state))["w"], expected["w"])
    assert batch._evaluated(InnerState(params, optax.EmptyState())) is params


@pytest.mark.parametrize(("seeds", "horizons"), [(0, (5,)), (1, ()), (1, (0, 5)), (1, (-1,))])
def test_nothing_to_run(suite, seeds, horizons):
    with pytest.raises(UsageError, match="one or more of each"):
        benchmark.run(suite, [], seeds, horizons)


def test_one_label_twice(suite):
    with pytest.raises(UsageError, match="'lion' is given 2 times"):
        benchmark.run(suite, [contenders.parse("lion"), contenders.parse("lion")])
