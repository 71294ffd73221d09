"""Optimizers and learning rate schedules by name."""

from __future__ import annotations

import importlib.util
import math
import re
import sys

import pytest
import timm.optim
import torch
from torch import nn
from transformers import get_constant_schedule_with_warmup, get_cosine_with_min_lr_schedule_with_warmup

from perceiver_plugins.sdk.tasks.optimizers import (
    constant_with_warmup,
    cosine_with_warmup,
    create_lr_scheduler,
    create_optimizer,
    find_lr_scheduler,
    find_optimizer,
    follow_schedule,
    lr_schedulers,
    optimizers,
)
from perceiver_registry import UserError


def parameters() -> list[nn.Parameter]:
    return [nn.Parameter(torch.ones(2, 3)), nn.Parameter(torch.ones(3))]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("AdamW", torch.optim.AdamW),
        ("adamw", torch.optim.AdamW),
        ("torch.optim.SGD", torch.optim.SGD),
        ("Lamb", timm.optim.Lamb),
        ("timm.optim.Lamb", timm.optim.Lamb),
    ],
)
def test_optimizers_by_name(name, expected):
    assert find_optimizer(name) is expected


def test_torch_has_precedence_over_timm():
    assert optimizers()["AdamW"] is torch.optim.AdamW
    assert "Optimizer" not in optimizers()


def test_schedules_by_name():
    assert find_lr_scheduler("CosineWithWarmup") is find_lr_scheduler("cosine_with_warmup")
    assert find_lr_scheduler("StepLR") is find_lr_scheduler("step") is torch.optim.lr_scheduler.StepLR
    assert not {"LRScheduler", "_LRScheduler"} & set(lr_schedulers())


@pytest.mark.parametrize(
    ("find", "name", "message"),
    [
        (find_optimizer, "AdmW", "unknown optimizer 'AdmW'; did you mean 'AdamW'"),
        (find_lr_scheduler, "CosineWarmup", "unknown learning rate schedule 'CosineWarmup'; did you mean"),
    ],
)
def test_similar_names_are_suggested(find, name, message):
    with pytest.raises(UserError, match=message):
        find(name)


def test_optimizer_without_a_fused_kernel():
    assert "fused" not in create_optimizer({"name": "Rprop", "lr": 0.1}, parameters()).defaults


@pytest.mark.parametrize("options", [{"lr": -1.0}, {"lr": 0.1, "momentm": 0.9}])
def test_wrong_arguments_are_user_errors(options):
    with pytest.raises(UserError, match="optimizer 'AdamW': "):
        create_optimizer({"name": "AdamW", **options}, parameters())
    with pytest.raises(UserError, match="learning rate schedule 'StepLR': "):
        create_lr_scheduler({"name": "StepLR"}, create_optimizer({"name": "SGD", "lr": 1.0}, parameters()), lambda: 1)


def rates(config: dict, steps: int, training_steps: int = 10) -> list[float]:
    optimizer = create_optimizer({"name": "SGD", "lr": 2.0}, parameters())
    schedule = create_lr_scheduler(config, optimizer, lambda: training_steps)["scheduler"]
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return seen


def test_cosine_with_warmup_equals_its_formula():
    config = {"name": "CosineWithWarmup", "warmup_steps": 3, "min_fraction": 0.1}
    expected = [2.0 * step / 3 for step in range(3)]
    expected += [2.0 * (0.1 + 0.9 * (1 + math.cos(math.pi * (step - 3) / 7)) / 2) for step in range(3, 11)]
    assert rates(config, 11) == pytest.approx(expected)


def test_cosine_after_a_constant_part():
    config = {"name": "CosineWithWarmup", "warmup_steps": 2, "constant_fraction": 0.4}
    expected = [0, 1, 2, 2] + [1 + math.cos(math.pi * step / 6) for step in range(7)]
    assert rates(config, 11) == pytest.approx(expected)
    with pytest.raises(UserError, match=re.escape("constant_fraction=1.0 must be at least 0 and less than 1")):
        rates(config | {"constant_fraction": 1.0}, 1)


def test_training_steps_override_the_length_of_the_run():
    config = {"name": "cosine_with_warmup", "training_steps": 4}
    assert rates(config, 5) == pytest.approx([2 * (1 + math.cos(math.pi * step / 4)) / 2 for step in range(5)])


def test_constant_with_warmup():
    assert rates({"name": "ConstantWithWarmup", "warmup_steps": 4}, 7) == pytest.approx([0, 0.5, 1, 1.5, 2, 2, 2])


@pytest.mark.parametrize(
    ("config", "interval", "monitor"),
    [
        ({"name": "StepLR", "step_size": 1}, "step", None),
        ({"name": "StepLR", "step_size": 1, "interval": "epoch"}, "epoch", None),
        ({"name": "CosineWithWarmup", "interval": None}, "step", None),
        ({"name": "ReduceLROnPlateau"}, "epoch", "val_loss"),
    ],
)
def test_interval_of_schedules(config, interval, monitor):
    created = create_lr_scheduler(config, create_optimizer({"name": "SGD", "lr": 1.0}, parameters()), lambda: 5)
    assert created["interval"] == interval
    assert created.get("monitor") == monitor


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"name": "CosineWithWarmup", "warmup_steps": 6}, 1.0),
        ({"name": "StepLR", "step_size": 1, "gamma": 0.5}, 0.25),
        ({"name": "ReduceLROnPlateau"}, 2.0),
    ],
)
def test_follow_schedule_sets_its_rate(config, expected):
    optimizer = create_optimizer({"name": "SGD", "lr": 2.0}, parameters())
    schedule = create_lr_scheduler(config, optimizer, lambda: 9)["scheduler"]
    schedule.last_epoch = 3
    optimizer.param_groups[0].update(lr=77.0, initial_lr=2.0)
    follow_schedule(optimizer, schedule)
    assert optimizer.param_groups[0]["lr"] == expected


def test_follow_schedule_without_schedule_sets_the_initial_rate():
    optimizer = create_optimizer({"name": "SGD", "lr": 2.0}, parameters())
    optimizer.param_groups[0].update(lr=77.0, initial_lr=2.0)
    follow_schedule(optimizer)
    assert optimizer.param_groups[0]["lr"] == 2.0


@pytest.mark.parametrize(
    ("config", "prefer_fused", "fused"),
    [
        ({"name": "AdamW"}, True, True),
        ({"name": "AdamW", "fused": None}, True, True),
        ({"name": "AdamW", "fused": None}, False, False),
        ({"name": "AdamW", "fused": True}, False, True),
        ({"name": "AdamW", "fused": False}, True, False),
        ({"name": "AdamW", "foreach": True}, True, None),
    ],
)
def test_fused_kernel_is_the_default(config, prefer_fused, fused):
    optimizer = create_optimizer(config, [torch.nn.Parameter(torch.zeros(2))], prefer_fused)
    assert optimizer.defaults["fused"] is fused


@pytest.mark.parametrize("warmup_steps", [0, 3])
def test_schedules_equal_those_of_transformers(warmup_steps):
    created = create_optimizer({"name": "SGD", "lr": 2.0}, parameters())
    pairs = [
        (constant_with_warmup(created, warmup_steps), get_constant_schedule_with_warmup(created, warmup_steps)),
        (
            cosine_with_warmup(created, warmup_steps, 10, 0.1),
            get_cosine_with_min_lr_schedule_with_warmup(created, warmup_steps, 10, min_lr_rate=0.1),
        ),
    ]
    for schedule, expected in pairs:
        factors = [each.lr_lambdas[0] for each in (schedule, expected)]
        assert [factors[0](step) for step in range(13)] == [factors[1](step) for step in range(13)]
        assert schedule.state_dict() == expected.state_dict()  # checkpoints of earlier releases resume


@pytest.fixture
def without_timm(monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setitem(sys.modules, "timm.optim", None)  # importing it raises ModuleNotFoundError
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *args: None if name == "timm" else find_spec(name, *args)
    )
    optimizers.cache_clear()
    yield
    optimizers.cache_clear()


def test_optimizers_of_torch_need_no_timm(without_timm):
    assert find_optimizer("AdamW") is torch.optim.AdamW
    assert "AdamW" in optimizers()
    with pytest.raises(UserError, match=r"unknown optimizer 'Lamb'; .*; an optimizer of timm needs timm"):
        find_optimizer("Lamb")
