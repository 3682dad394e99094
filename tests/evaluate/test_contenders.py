import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from learned_opt import registry
from learned_opt.checkpoints import artifact
from learned_opt.errors import UsageError
from learned_opt.evaluate import hand_written
from learned_opt.evaluate.contenders import parse
from learned_opt.evaluate.hand_written import Cosine, HandWritten
from learned_opt.knobs import with_knobs


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
        ("schedule-free", "schedule-free", 0.0025),
        ("sgd-momentum", "sgd-momentum", 1e-2),
        ("lion", "lion", 1e-4),
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
    assert parse("adam-tuned").swept
    assert not parse("adam").swept


def test_how_it_was_tuned_is_said():
    assert parse("adam").tuning == "learning rate 0.001, its default; not tuned"
    assert parse("adam@3e-3").tuning == "learning rate 3e-3 as given"
    assert parse("lion-tuned").tuning.startswith("the best of 15 learning rates, half-decades around 0.0001, ")
    assert "(an oracle)" in parse("adam-tuned").tuning
    assert "each horizon is a run of its own" in parse("adamw-cosine").tuning
    assert parse("digits").tuning == "meta-trained; nothing chosen for these tasks"
    assert parse("star").tuning.startswith("meta-trained, used with early_decay 0.0005 for 0.001; nothing chosen")


def test_cosine_is_the_schedule_of_optax():
    """From a traced peak and horizon."""
    assert parse("adamw-cosine").swept
    assert parse("adamw-cosine").optimizer == Cosine()
    assert parse("adamw-cosine@0.1").rates == (0.1,)
    theirs = optax.adamw(optax.warmup_cosine_decay_schedule(0.0, 0.1, 4, 40))
    ours = Cosine().transform(jax.tree.map(jnp.asarray, Cosine().theta(0.1, 40)))
    params = {"w": jnp.ones(3)}
    states = [ours.init(params), theirs.init(params)]
    for step in range(41):
        grads = {"w": jnp.sin(step + jnp.arange(3.0))}
        (mine, states[0]), (his, states[1]) = (
            o.update(grads, s, params) for o, s in zip((ours, theirs), states, strict=True)
        )
        np.testing.assert_allclose(mine["w"], his["w"], rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(mine["w"], 0, atol=1e-8)  # at the end


def test_a_cooldown_is_that_of_load():
    """From a traced theta and horizon; each horizon is a run of its own."""
    plain, cooled = parse("digits"), parse("digits+cooldown")
    assert (cooled.label, list(cooled.thetas)) == ("digits+cooldown", ["digits+cooldown"])
    assert cooled.per_horizon
    assert not plain.per_horizon
    assert (cooled.card, cooled.max_horizon) == (plain.card, 3000)
    assert "steps fall linearly to 0 over the last 20% of the horizon" in cooled.tuning
    params = {"w": jnp.ones(3)}
    theta = jax.tree.map(jnp.asarray, cooled.theta("digits+cooldown", 10))

    @jax.jit
    def steps(theta):
        ours = cooled.optimizer.transform(theta)
        theirs = with_knobs(plain.optimizer.transform(theta["theta"]), total_steps=10)
        states, updates = [ours.init(params), theirs.init(params)], []
        for step in range(11):
            grads = {"w": jnp.sin(step + jnp.arange(3.0))}
            found = [o.update(grads, s, params) for o, s in zip((ours, theirs), states, strict=True)]
            updates.append([update["w"] for update, _ in found])
            states = [state for _, state in found]
        return updates

    for mine, his in steps(theta):
        np.testing.assert_allclose(mine, his, rtol=1e-5, atol=1e-9)
    np.testing.assert_array_equal(mine, np.zeros(3))  # at the end


def test_momentum():
    params, grads = {"w": jnp.ones(3)}, {"w": jnp.arange(3.0)}
    ours, theirs = HandWritten("sgd-momentum").transform(np.float32(0.1)), optax.sgd(0.1, 0.9)
    updates, state = ours.update(grads, ours.init(params), params)
    expected, their_state = theirs.update(grads, theirs.init(params), params)
    np.testing.assert_allclose(updates["w"], expected["w"])
    np.testing.assert_allclose(ours.update(grads, state)[0]["w"], theirs.update(grads, their_state)[0]["w"])


@pytest.mark.parametrize("name", hand_written.names())
@pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")
def test_every_accepted_name_trains_at_a_traced_rate(name):
    """And its state keeps its types, as a loop on the device asks."""
    params = {"w": jnp.ones((3, 4)), "b": jnp.ones(4)}

    def steps(theta):
        optimizer = hand_written.optimizer(name).transform(theta)
        state = optimizer.init(params)
        updates, new_state = optimizer.update(params, state, params, value=jnp.ones(()))
        return updates, state, new_state

    updates, state, new_state = jax.eval_shape(steps, hand_written.optimizer(name).theta(1e-3, 10))
    described = functools.partial(jax.tree.map, lambda x: (x.shape, x.dtype))
    assert described(updates) == described(jax.eval_shape(lambda: params))
    assert described(state) == described(new_state)


def test_names_hold_the_usual_and_nothing_else():
    names = set(hand_written.names())
    assert {"adam", "adamw", "sgd", "rmsprop", "lion", "nadamw", "lamb", "muon", "prodigy", "adamw-cosine"} <= names
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
        ("digit+cooldown", "unknown optimizer 'digit': did you mean digits"),
        ("adam+cooldown", r"adam\+cooldown: a cooldown is accepted on pretrained names and run directories"),
        ("digits+cooldown+cooldown", r"digits\+cooldown\+cooldown: a cooldown is accepted"),
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
