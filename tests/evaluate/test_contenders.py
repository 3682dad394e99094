import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from learned_opt import registry
from learned_opt.checkpoints import artifact
from learned_opt.errors import UsageError
from learned_opt.evaluate import contenders
from learned_opt.evaluate.contenders import HandWritten, parse


@pytest.mark.parametrize(
    ("text", "name", "rate"),
    [
        ("adam", "adam", 1e-3),
        ("adam@3e-3", "adam", 3e-3),
        ("sgd@1e6", "sgd", 1e6),
        ("nadamw", "nadamw", 1e-3),
        ("muon", "muon", 1e-3),
        ("contrib.muon@0.02", "muon", 0.02),
        ("prodigy", "prodigy", 1.0),
        ("schedule_free_adamw", "schedule_free_adamw", 0.0025),
    ],
)
def test_optax_names(text, name, rate):
    contender = parse(text)
    assert contender.label == text
    assert contender.optimizer == HandWritten(name)
    assert contender.rates == (rate,)
    np.testing.assert_array_equal(contender.thetas[rate], np.float32(rate))


def test_a_sweep():
    rates = parse("adam-tuned").rates
    assert len(rates) == 15
    assert rates[7] == 1e-3
    np.testing.assert_allclose(np.diff(np.log10(rates)), 0.5)
    assert parse("prodigy-tuned").rates[7] == 1.0


@pytest.mark.parametrize("name", contenders.optax_names())
@pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")
def test_every_accepted_name_trains_at_a_traced_rate(name):
    """And its state keeps its types, as a loop on the device asks."""
    params = {"w": jnp.ones((3, 4)), "b": jnp.ones(4)}

    def steps(rate):
        optimizer = HandWritten(name).transform(rate)
        state = optimizer.init(params)
        updates, new_state = optimizer.update(params, state, params, value=jnp.ones(()))
        return updates, state, new_state

    updates, state, new_state = jax.eval_shape(steps, jnp.float32(1e-3))
    described = functools.partial(jax.tree.map, lambda x: (x.shape, x.dtype))
    assert described(updates) == described(jax.eval_shape(lambda: params))
    assert described(state) == described(new_state)


def test_names_hold_the_usual_and_nothing_else():
    names = set(contenders.optax_names())
    assert {"adam", "adamw", "sgd", "rmsprop", "lion", "nadamw", "lamb", "muon", "prodigy"} <= names
    assert not names & {"scale_by_adam", "chain", "cosine_decay_schedule", "clip", "lbfgs", "sophia", "schedule_free"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("adm", r"unknown optimizer 'adm': did you mean adam or radam\? accepted: .*, adam, .*"),
        ("adm@1e-3", "unknown optimizer 'adm@1e-3'"),
        ("runs/none", "unknown optimizer 'runs/none': accepted: .*a run directory"),
        ("scale_by_adam", "unknown optimizer 'scale_by_adam'"),
        ("cosine_decay_schedule", "unknown optimizer"),
        ("adam-tuned@1e-3", "unknown optimizer 'adam-tuned@1e-3'"),
        ("", "unknown optimizer ''"),
        ("lbfgs", "optimizer 'lbfgs' needs the objective"),
        ("sophia-tuned", "optimizer 'sophia-tuned' needs the objective"),
        *((f"adam@{rate}", f"learning rate '{rate}' in 'adam@{rate}': a positive number is accepted") for rate in (
            "x", "", "-1", "0", "nan", "inf", "1e-60", "1e60",
        )),
    ],
)  # fmt: skip
def test_bad_names(text, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=rf"^{message}[^\n]*$"):
        parse(text)


def test_a_run_directory(tmp_path):
    optimizer = registry.make("star", {"hidden": (3,)})
    theta = optimizer.init(jax.random.key(0))
    card = {"optimizer": "star", "optimizer_options": {"hidden": [3]}, "config": {"max_horizon": 70}}
    artifact.write(tmp_path, theta, card)
    contender = parse(str(tmp_path))
    assert contender.label == str(tmp_path)
    assert contender.optimizer == optimizer
    assert contender.rates == ()
    assert contender.max_horizon == 70
    assert len(contender.card["sha256"]) == 64
    jax.tree.map(np.testing.assert_array_equal, contender.thetas, {str(tmp_path): theta})


def test_a_directory_that_is_no_run(tmp_path):
    with pytest.raises(UsageError, match=r"holds no card\.json"):
        parse(str(tmp_path))


def test_hand_written_optimizers_are_those_of_optax():
    params, grads = {"w": jnp.ones(3)}, {"w": jnp.arange(3.0)}
    ours, theirs = HandWritten("lion").transform(np.float32(0.1)), optax.lion(0.1)
    updates = [o.update(grads, o.init(params), params)[0]["w"] for o in (ours, theirs)]
    np.testing.assert_allclose(*updates, rtol=1e-6)
