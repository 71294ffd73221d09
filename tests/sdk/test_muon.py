"""Muon for matrices of layers, beside AdamW for other parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from perceiver_core import PerceiverConfig
from perceiver_plugins.sdk.tasks.muon import MATRICES, Muon, orthogonalize
from perceiver_plugins.sdk.tasks.optimizers import create_optimizer, find_optimizer
from perceiver_plugins.sdk.tasks.parameter_groups import find_matrices, group_parameters
from perceiver_plugins.text import LitLanguageModel
from perceiver_registry import UserError


@pytest.mark.parametrize("shape", [(5, 5), (3, 17), (17, 3), (2, 4, 7), (1, 6)])
def test_orthogonalize_keeps_singular_vectors(shape: tuple[int, ...]) -> None:
    u, s, vh = torch.linalg.svd(torch.randn(shape, dtype=torch.float64), full_matrices=False)
    s = s / s.amax(-1, keepdim=True) * 0.8 + 0.2  # the iteration does not reach small ones
    result = u.mT @ orthogonalize(u * s[..., None, :] @ vh * 30.0) @ vh.mT
    singular_values = result.diagonal(dim1=-2, dim2=-1)
    torch.testing.assert_close(result, torch.diag_embed(singular_values), rtol=0.0, atol=1e-9)
    assert singular_values.min() > 0.6
    assert singular_values.max() < 1.3


def test_orthogonalize_keeps_zero() -> None:
    torch.testing.assert_close(orthogonalize(torch.zeros(3, 4)), torch.zeros(3, 4), rtol=0.0, atol=0.0)


def weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return {name: nn.Parameter(torch.randn(shape, generator=generator)) for name, shape in shapes.items()}


def train(parameters: dict[str, nn.Parameter], *optimizers: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Take steps with gradients that differ in each."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(6):
        for parameter in parameters.values():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        for optimizer in optimizers:
            optimizer.step()
    return {name: parameter.detach() for name, parameter in parameters.items()}


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch.optim.Muon is new in torch 2.9")
def test_steps_are_those_of_torch() -> None:
    shapes = {"a": (8, 8), "b": (6, 20), "c": (8, 8), "bias": (9,), "embedding": (11, 4)}
    ours, theirs = weights(shapes), weights(shapes)
    options: dict[str, Any] = {"lr": 0.05, "weight_decay": 0.3}
    groups = [
        {"params": [ours["bias"], ours["embedding"]]},
        {"params": [ours[name] for name in "abc"], MATRICES: True},
    ]
    result = train(ours, Muon(groups, **options))
    expected = train(
        theirs,
        torch.optim.Muon([theirs[name] for name in "abc"], adjust_lr_fn="match_rms_adamw", **options),  # type: ignore[attr-defined]
        torch.optim.AdamW([theirs["bias"], theirs["embedding"]], **options),
    )
    for name in shapes:
        # torch orthogonalises in bfloat16
        torch.testing.assert_close(result[name], expected[name], rtol=0.0, atol=2e-2 if name in "abc" else 0.0)
        assert name not in "abc" or (result[name] - weights(shapes)[name]).abs().max() > 0.2


def test_parameters_without_gradient_stay() -> None:
    parameters = weights({"a": (4, 4), "b": (4, 4)})
    before = parameters["b"].detach().clone()
    optimizer = Muon([{"params": list(parameters.values()), MATRICES: True}], weight_decay=0.5)
    parameters["a"].grad = torch.ones(4, 4)
    optimizer.step()
    torch.testing.assert_close(parameters["b"].detach(), before, rtol=0.0, atol=0.0)


def test_closure_is_called_once() -> None:
    parameter = nn.Parameter(torch.ones(3, 3))
    optimizer = Muon([{"params": [parameter], MATRICES: True}])

    def closure() -> Tensor:
        loss = parameter.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) == 9.0
    torch.testing.assert_close(parameter.grad, torch.full((3, 3), 2.0))


def test_matrices_are_those_of_layers(tiny_config: Callable[..., PerceiverConfig]) -> None:
    module = LitLanguageModel.create(tiny_config(), optimizer={"name": "Muon"}, num_samples=0)
    names = {parameter: name for name, parameter in module.named_parameters()}
    groups = group_parameters(module.named_parameters(), {"name": "Muon"}, Muon, matrices=find_matrices(module))
    found = {names[each] for group in groups if group.get(MATRICES) for each in group["params"]}
    expected = {name for name in names.values() if name.endswith(("proj.weight", "hidden.weight", "output.weight"))}
    assert found == expected
    assert len(found) > 10
    assert not any("adapter" in name for name in found)
    others = group_parameters(module.named_parameters(), {"name": "AdamW"}, torch.optim.AdamW, matrices=found)
    assert not any(MATRICES in group for group in others)


def test_name() -> None:
    assert find_optimizer("Muon") is Muon
    assert find_optimizer("muon") is Muon


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"momentum": 1.0}, "momentum=1.0: must be at least 0"),
        ({"lr": -1.0}, "learning rate: -1.0"),
        ({"nesterov": True}, "nesterov"),
    ],
)
def test_invalid_options_are_reported(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        create_optimizer({"name": "Muon", **options}, [nn.Parameter(torch.ones(2, 2))])


def test_groups_of_matrices_have_matrices_only() -> None:
    with pytest.raises(ValueError, match="two dimensions"):
        Muon([{"params": [nn.Parameter(torch.ones(2))], MATRICES: True}])
