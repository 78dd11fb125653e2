"""Zeros that come while the model trains, and stay."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from schemas.fine_tune import AdamW, FineTune, Sgd
from schemas.schedule import Gradual
from tests.unit.pruning.small import small_bundle
from tests.unit.training.runs import (
    STEPS,
    count,
    cut_to,
    gradual,
    pruned_model,
    same,
    state,
    train,
    zeros,
)
from workers.fine_tune import StepInfo
from workers.pruning.layers import Choice, prunable_layers
from workers.training.masks import MaskUpdates, forget_zeros
from workers.training.trainer import Trainer

WEIGHTS = 1872
OPTIMIZERS = [Sgd(lr=0.1, weight_decay=0.1), AdamW(lr=0.01, weight_decay=0.1)]


def shares(updates: MaskUpdates, steps: int) -> list[float | None]:
    return [updates.share_at(step, steps) for step in range(steps)]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_mask_grows_as_the_schedule_says_and_holds_after_every_step(optimizer):
    model, choice = pruned_model(0.0)
    updates = gradual(choice, 0.8, every_steps=2, begin=0.1, end=0.7)
    seen = []

    train(
        model,
        choice,
        epochs=4,
        optimizer=optimizer,
        mask_updates=updates,
        on_step=lambda _: seen.append(zeros(choice)),
    )

    share = 0.0
    for step, masks in enumerate(seen):
        share = updates.share_at(step, 4 * STEPS) or share
        assert count(masks) == round(share * WEIGHTS), f"step {step}"
        for before, after in zip(seen[step - 1] if step else masks, masks, strict=True):
            assert bool((after | ~before).all()), f"a zero moved in step {step}"
    assert count(seen[-1]) == round(0.8 * WEIGHTS)


def test_the_goal_is_reached_although_the_next_update_would_come_too_late():
    model, choice = pruned_model(0.0)

    train(model, choice, mask_updates=gradual(choice, 0.5, every_steps=1000, end=1.0))

    assert count(zeros(choice)) == round(0.5 * WEIGHTS)


def test_updates_come_every_so_many_steps_between_begin_and_end():
    updates = MaskUpdates(Gradual(every_steps=10, begin=0.2, end=0.65, curve="linear"), 0.9, lambda _: None)

    found = {step: share for step, share in enumerate(shares(updates, 100)) if share is not None}

    assert found == pytest.approx({30: 0.2, 40: 0.4, 50: 0.6, 60: 0.8, 65: 0.9})


@given(
    st.integers(1, 300),
    st.integers(1, 400),
    st.floats(0, 0.99),
    st.floats(0.001, 1),
    st.sampled_from(["linear", "cubic", "geometric"]),
    st.floats(0.01, 0.99),
)
def test_shares_never_fall_and_end_at_the_goal(steps, every, begin, length, curve, final):
    schedule = Gradual(every_steps=every, begin=begin, end=min(1.0, begin + length), curve=curve)
    updates = MaskUpdates(schedule, final, lambda _: None)

    found = [share for share in shares(updates, steps) if share is not None]

    assert found == sorted(found)
    assert found[-1] == final
    assert updates.share_at(updates.last_step(steps), steps) == final


def test_a_cut_that_measures_in_eval_mode_and_leaves_gradients_changes_nothing_else():
    trained = []
    for measures in (False, True):
        model, choice = pruned_model(0.2)

        def cut_now(share, model=model, choice=choice, measures=measures):
            cut_to(choice, share)
            if measures:
                model.module.eval()
                model.module(torch.ones(2, 1, 6, 6)).sum().backward()

        train(model, choice, mask_updates=MaskUpdates(Gradual(every_steps=2), 0.8, cut_now))
        trained.append(state(model))

    assert same(*trained)


def test_moments_of_a_fresh_zero_are_cleared_and_all_others_kept():
    model, choice = pruned_model(0.0)
    trainer = Trainer(model, choice.pruned, FineTune(optimizer=AdamW(lr=0.01)), None, 4)
    inputs, labels = next(small_bundle().batches(small_bundle().train, 16, device=model.device))
    trainer.step(inputs, labels)
    weight = choice.pruned[0].weight
    moments = trainer.optimizer.state[weight]
    before = moments["exp_avg"].clone()
    with torch.no_grad():
        weight[0] = 0.0

    forget_zeros(trainer.optimizer, choice.pruned)

    assert (moments["exp_avg"][0] == 0).all()
    assert (moments["exp_avg_sq"][0] == 0).all()
    assert torch.equal(moments["exp_avg"][1:], before[1:])
    assert (before[0] != 0).any()
    assert moments["step"] == 1


def test_patience_counts_from_the_goal_on():
    model, choice = pruned_model(0.0)
    metrics = iter([0.9, 0.8, 0.7, 0.6])

    result = train(
        model,
        choice,
        epochs=8,
        patience=2,
        evaluate_epoch=lambda: next(metrics),
        mask_updates=gradual(choice, 0.5, every_steps=3, end=0.6),
    )

    # 48 steps: the goal is reached before step 29 (0-based) of epoch 5, whose metric is the first
    assert (result.epochs_run, result.best_metric) == (7, 0.9)
    assert count(zeros(choice)) == round(0.5 * WEIGHTS)


def test_the_gradients_of_zeros_are_shown_before_they_are_masked():
    model, choice = pruned_model(0.6)
    gone = zeros(choice)
    seen: list[int] = []

    def look() -> None:
        gradients = [layer.weight.grad for layer in choice.pruned]
        seen.append(sum(int((one[mask] != 0).sum()) for one, mask in zip(gradients, gone, strict=True)))

    train(model, choice, epochs=2, after_backward=look)

    assert len(seen) == 2 * STEPS
    assert all(number > 0 for number in seen)
    assert count(zeros(choice)) == count(gone)


def test_a_model_without_masks_trains_all_its_weights():
    model, _ = pruned_model(0.0)
    before, prunable = state(model), prunable_layers(model.module)
    steps: list[StepInfo] = []
    options = {"average": {"kind": "ema", "decay": 0.5}, "regrow": {"every_steps": 2}}

    result = train(model, Choice((), {}), on_step=steps.append, **options)

    assert {one.step for one in steps} == set(range(1, STEPS + 1))
    assert result.regrown == 0
    assert all((layer.weight != before[f"{layer.name}.weight"]).all() for layer in prunable)
