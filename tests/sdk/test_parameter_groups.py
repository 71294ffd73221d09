"""Parameter groups: weight decay without biases and norms, and layer-wise learning rate decay."""

from __future__ import annotations

from typing import Any

import pytest
import timm.optim
import torch
from pytorch_lightning.strategies import SingleDeviceStrategy

from perceiver_plugins.sdk.tasks.optimizers import create_lr_scheduler, create_optimizer, find_optimizer
from perceiver_plugins.sdk.tasks.parameter_groups import group_parameters
from perceiver_plugins.text import LanguageModel, LitLanguageModel
from perceiver_registry import UserError

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*LeafSpec.*")

REPEATED = {
    "num_cross_attention_layers": 2,
    "num_self_attention_blocks": 3,
    "first_cross_attention_layer_shared": False,
    "first_self_attention_block_shared": False,
}
"""An encoder of two cross-attention layers and two blocks, of which the last one is applied twice."""


@pytest.fixture
def model(text_config):
    return LanguageModel(text_config(REPEATED))


def groups_of(model, **config: Any) -> list[dict[str, Any]]:
    return group_parameters(model.named_parameters(), config, find_optimizer(config["name"]))


def options_of(model, groups) -> dict[str, tuple[float, float]]:
    """Learning rate relative to the highest and weight decay of each parameter by name."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {
        names[parameter]: (group.get("lr_scale", 1.0), group.get("weight_decay", 0.3))
        for group in groups
        for parameter in group["params"]
    }


def test_weight_decay_applies_to_the_parameters_that_timm_chooses(model):
    model.encoder.cross_attention_layers[0].requires_grad_(False)
    groups = groups_of(model, name="AdamW", weight_decay=0.3)
    no_decay, decay = timm.optim.param_groups_weight_decay(model, 0.3)
    assert [group.get("weight_decay", 0.3) for group in groups] == [0.3, 0.0]
    for group, expected in zip(groups, (decay, no_decay), strict=True):
        assert [id(parameter) for parameter in group["params"]] == [id(parameter) for parameter in expected["params"]]


def test_latents_embeddings_and_positions_decay(model):
    decays = {name for name, (_, decay) in options_of(model, groups_of(model, name="AdamW")).items() if decay}
    tables = {"encoder.latents", "input_adapter.token_embedding.weight", "input_adapter.position_embedding.weight"}
    assert tables <= decays


def test_layers_learn_at_the_rates_of_timm(model):
    model.group_matcher = lambda coarse: {
        "stem": r"^input_adapter|^encoder\.latents",
        "blocks": [
            (r"^encoder\.cross_attention_layers\.0", (0,)),
            (r"^encoder\.self_attention_blocks\.0\.0", (1,)),
            (r"^encoder\.self_attention_blocks\.0\.1", (2,)),
            (r"^encoder\.cross_attention_layers\.1", (3,)),
            (r"^encoder\.self_attention_blocks\.1\.0", (4,)),
            (r"^encoder\.self_attention_blocks\.1\.1", (5,)),
        ],
        "head": r"^decoder|^output_adapter",
    }
    groups = groups_of(model, name="AdamW", lr=0.02, weight_decay=0.3, layer_decay=0.75)
    expected = timm.optim.param_groups_layer_decay(model, 0.3, layer_decay=0.75)
    assert options_of(model, groups) == options_of(model, expected)
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    assert [group.get("lr", 0.02) for group in groups] == [0.02 * group.get("lr_scale", 1.0) for group in groups]
    assert len({group.get("lr_scale") for group in groups}) == 8


def test_shared_layer_counts_once(text_config):
    shared = REPEATED | {"first_cross_attention_layer_shared": True, "first_self_attention_block_shared": True}
    model = LanguageModel(text_config(shared))
    scales = {scale for scale, _ in options_of(model, groups_of(model, name="AdamW", layer_decay=0.5)).values()}
    assert scales == {0.5**power for power in range(5)}  # stem, cross-attention, two self-attentions, rest


def test_without_weight_decay_the_parameters_are_one_group(model):
    for config in ({"name": "SGD"}, {"name": "AdamW", "weight_decay": 0.0}, {"name": "LBFGS"}):
        (group,) = groups_of(model, **config)
        assert group.keys() == {"params"}
        assert [id(each) for each in group["params"]] == [id(each) for each in model.parameters()]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"name": "AdamW", "layer_decay": 0.0}, r"--optimizer\.layer_decay: must be more than 0 and at most 1, got 0"),
        ({"name": "AdamW", "layer_decay": 1.5}, r"--optimizer\.layer_decay: must be .*, got 1\.5"),
        ({"name": "AdafactorBigVision", "lr": None, "layer_decay": 0.5}, r"layer_decay: needs .*\(set --optimizer\.lr"),
    ],
)
def test_unusable_layer_decay_is_reported(model, config, message):
    with pytest.raises(UserError, match=message):
        groups_of(model, **config)


@pytest.mark.parametrize(
    "schedule",
    [
        {"name": "CosineWithWarmup", "warmup_steps": 2},
        {"name": "OneCycle", "max_lr": 0.5, "total_steps": 8},
        {"name": "Cyclic", "base_lr": 0.1, "max_lr": 0.5, "step_size_up": 2},
        {"name": "Step", "step_size": 3},
        {"name": "ReduceLROnPlateau", "patience": 0, "min_lr": 0.05},
    ],
    ids=lambda schedule: schedule["name"],
)
def test_schedules_keep_the_ratio_of_the_rates(model, schedule):
    config = {"name": "SGD", "lr": 0.2, "momentum": 0.9, "layer_decay": 0.5}
    optimizer = create_optimizer(config, groups_of(model, **config))
    scales = [group.get("lr_scale", 1.0) for group in optimizer.param_groups]
    assert len(set(scales)) == 8
    scheduler = create_lr_scheduler(schedule, optimizer, lambda: 8)["scheduler"]
    for _ in range(7):
        rates = [group["lr"] for group in optimizer.param_groups]
        assert rates == pytest.approx([rates[0] * scale for scale in scales], rel=1e-9)
        optimizer.step()
        scheduler.step(*([1.0] if "Plateau" in schedule["name"] else []))


def test_strategies_that_flatten_parameters_have_one_group(tiny_config, tiny_data, quiet_trainer, monkeypatch):
    """As with FSDP, which needs a GPU."""

    def fit(**optimizer: Any) -> torch.optim.Optimizer:
        module = LitLanguageModel.create(tiny_config(), optimizer={"name": "AdamW", **optimizer}, num_samples=0)
        trainer = quiet_trainer(max_steps=1)
        trainer.fit(module, datamodule=tiny_data())
        return trainer.optimizers[0]

    monkeypatch.setattr(SingleDeviceStrategy, "restore_checkpoint_after_setup", True)
    with pytest.warns(UserWarning, match=r"strategy=SingleDeviceStrategy: weight decay applies to biases and norms"):
        (group,) = fit().param_groups
    assert group["weight_decay"] == 0.01
    with pytest.raises(UserError, match=r"layer_decay: cannot be combined with --trainer\.strategy=Single"):
        fit(layer_decay=0.5)
