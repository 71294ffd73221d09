"""Adapters, hooks, parametrizations and special tensors around a layer take effect on every path of the attention."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Replicate, distribute_tensor
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.functional import linear as torch_linear
from torch.nn.utils import parametrizations, parametrize, prune
from torch.utils._pytree import tree_map

from perceiver_core import Linear, MultiHeadAttention, linear
from perceiver_core.activations import ActivationPolicy
from perceiver_core.kernels.absorbed import Projections, choose_absorption
from perceiver_core.kernels.onednn import prefers_onednn
from perceiver_core.kernels.override import force_kernel
from perceiver_core.kernels.sdpa import attend

NUM_QUERIES, NUM_INPUTS = 3, 40
PATHS: tuple[tuple[Any, Any], ...] = (
    (None, None),
    ("plain", "none"),
    ("plain", "inputs"),
    ("fused", "inputs"),
    ("chunked", "inputs"),
    ("plain", "queries"),
    ("fused", "queries"),
    ("chunked", "queries"),
)


class LowRank(nn.Module):
    """A low-rank adapter that keeps the interface of the layer it wraps; in training it counts twice."""

    def __init__(self, base: nn.Linear):
        super().__init__()
        self.base = base
        self.in_features, self.out_features = base.in_features, base.out_features
        self.down, self.up = nn.Linear(base.in_features, 2, bias=False), nn.Linear(2, base.out_features, bias=False)

    @property
    def weight(self) -> Tensor:
        return self.base.weight

    @property
    def bias(self) -> Tensor | None:
        return self.base.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(x)) * (2.0 if self.training else 1.0)


class SineLinear(Linear):
    """A subclass that is not linear."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).sin()


class Rounding(Tensor):
    """A weight that rounds the inputs it is multiplied with, as a layer with quantized activations does."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch_linear:
            x, weight, *bias = tree_map(lambda value: value.as_subclass(Tensor) if type(value) is cls else value, args)
            rounded = x + ((x * 4).round() / 4 - x).detach()
            return torch_linear(rounded, weight, *bias, **(kwargs or {}))
        return super().__torch_function__(func, types, args, kwargs or {})


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def _parametrize(layer: nn.Linear) -> nn.Linear:
    parametrize.register_parametrization(layer, "weight", Doubled())
    return layer


def _weight_norm(layer: nn.Linear) -> nn.Linear:
    layer = parametrizations.weight_norm(layer)
    with torch.no_grad():
        layer.parametrizations.weight.original0.mul_(1.5)
    return layer


def _old_weight_norm(layer: nn.Linear) -> nn.Linear:
    torch.nn.utils.weight_norm(layer)
    with torch.no_grad():
        layer.weight_g.mul_(1.5)  # the hook makes the weight of it when the layer is called
    return layer


def _pruned(layer: nn.Linear) -> nn.Linear:
    prune.l1_unstructured(layer, "weight", amount=0.5)
    return layer


def _rounding(layer: nn.Linear) -> nn.Linear:
    layer.weight = nn.Parameter(layer.weight.detach().as_subclass(Rounding))
    return layer


def _subclass(layer: nn.Linear) -> nn.Linear:
    other = SineLinear(layer.in_features, layer.out_features)
    other.load_state_dict(layer.state_dict())
    return other


def _patched(layer: nn.Linear) -> nn.Linear:
    original = layer.forward
    layer.forward = lambda x: original(x).cos()  # type: ignore[method-assign]
    return layer


def _hooked(register: str, hook: Callable[..., Any]) -> Callable[[nn.Linear], nn.Linear]:
    def wrap(layer: nn.Linear) -> nn.Linear:
        getattr(layer, register)(hook)
        return layer

    return wrap


WRAPPINGS: dict[str, Callable[[nn.Linear], nn.Module]] = {
    "adapter": LowRank,
    "sequence": lambda layer: nn.Sequential(layer, nn.Tanh()),
    "subclass": _subclass,
    "patched forward": _patched,
    "no bias": lambda layer: nn.Linear(layer.in_features, layer.out_features, bias=False),
    "forward hook": _hooked("register_forward_hook", lambda module, inputs, output: output.sin()),
    "forward pre-hook": _hooked("register_forward_pre_hook", lambda module, inputs: (inputs[0].sin(),)),
    "backward hook": _hooked("register_full_backward_hook", lambda module, grads, outputs: (3 * grads[0],)),
    "backward pre-hook": _hooked("register_full_backward_pre_hook", lambda module, grads: (3 * grads[0],)),
    "parametrization": _parametrize,
    "weight norm": _weight_norm,
    "old weight norm": _old_weight_norm,
    "pruned": _pruned,
    "tensor subclass": _rounding,
}


@pytest.fixture
def attention_of(randomise: Callable[[nn.Module], nn.Module]) -> Callable[..., MultiHeadAttention]:
    def attention_of(**wrappings: Callable[[nn.Linear], nn.Module]) -> MultiHeadAttention:
        attention: Any = randomise(MultiHeadAttention(1, 5, 11, 6, 10, 3))
        for name, wrap in wrappings.items():
            setattr(attention, name, wrap(getattr(attention, name)))
        return attention.double()

    return attention_of


@pytest.fixture
def arrays() -> list[Tensor]:
    shapes = ((2, NUM_QUERIES, 5), (2, NUM_INPUTS, 11))
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


def formula(attention: Any, x_q: Tensor, x_kv: Tensor) -> Tensor:
    """The plain formula of one head, of what the projections return when they are called."""
    q, k, v = attention.q_proj(x_q), attention.k_proj(x_kv), attention.v_proj(x_kv)
    return attention.o_proj((q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1) @ v)


def with_gradients(output: Tensor, attention: nn.Module, arrays: list[Tensor]) -> dict[str, Tensor]:
    inputs = {"x_q": arrays[0], "x_kv": arrays[1], **dict(attention.named_parameters())}
    loss = (output * torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)).sum()
    return {"output": output.detach(), **dict(zip(inputs, torch.autograd.grad(loss, [*inputs.values()]), strict=True))}


PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")

FEATURES: tuple[tuple[Any, ...], ...] = (tuple(WRAPPINGS), PATHS, PROJECTIONS, (True, False))
"""Wrapper of a projection, forced kernel and absorption, projection, and training mode."""

PAIRWISE = [
    (wrapping, path, PROJECTIONS[(i + j) % 4], (i + j // 4) % 2 == 0)
    for i, wrapping in enumerate(WRAPPINGS)
    for j, path in enumerate(PATHS)
]
"""Each pair of values of two features, in as few cases as the two largest features have pairs."""


def test_cases_cover_each_pair_of_features() -> None:
    for first, second in itertools.combinations(range(len(FEATURES)), 2):
        pairs = {(case[first], case[second]) for case in PAIRWISE}
        assert pairs == set(itertools.product(FEATURES[first], FEATURES[second]))


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(("wrapping", "path", "name", "training"), PAIRWISE, ids=str)
def test_wrapped_projections_take_effect_in_every_kernel(
    attention_of: Callable[..., Any], arrays: list[Tensor], wrapping: str, path: Any, name: str, training: bool
) -> None:
    attention = attention_of(**{name: WRAPPINGS[wrapping]}).train(training)
    expected = with_gradients(formula(attention, *arrays), attention, arrays)
    with force_kernel(*path):
        torch.testing.assert_close(with_gradients(attention(*arrays)[0], attention, arrays), expected)
        with torch.no_grad():
            torch.testing.assert_close(attention(*arrays)[0], expected["output"])


def projections_of(attention: MultiHeadAttention) -> Projections:
    return Projections(attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj)


def test_unmodified_projections_are_still_absorbed(attention_of: Callable[..., Any], arrays: list[Tensor]) -> None:
    assert choose_absorption(projections_of(attention_of()), *arrays) == "inputs"
    replaced = attention_of(k_proj=lambda layer: nn.Linear(layer.in_features, layer.out_features))
    assert choose_absorption(projections_of(replaced), *arrays) == "inputs"
    assert choose_absorption(projections_of(attention_of(k_proj=LowRank)), *arrays) == "none"


@pytest.fixture
def halved_everywhere() -> Iterator[None]:
    """A hook on all modules, which halves what linear layers return."""
    handle = torch.nn.modules.module.register_module_forward_hook(
        lambda module, inputs, output: output / 2 if isinstance(module, nn.Linear) else None
    )
    yield
    handle.remove()


@pytest.mark.usefixtures("halved_everywhere")
def test_hooks_on_all_modules_take_effect(attention_of: Callable[..., Any], arrays: list[Tensor]) -> None:
    attention = attention_of()
    expected = formula(attention, *arrays)
    for path, absorption in PATHS:
        with force_kernel(path, absorption):
            torch.testing.assert_close(attention(*arrays)[0], expected)


def test_other_tensors_than_the_modules_own(attention_of: Callable[..., Any], arrays: list[Tensor]) -> None:
    """``functional_call`` with ordinary tensors, with a tensor subclass, and with other sizes."""
    attention = attention_of()
    own = {name: parameter.detach() for name, parameter in attention.named_parameters()}
    narrow = {
        f"{name}.{kind}": own[f"{name}.{kind}"][:4] for name in ("q_proj", "k_proj") for kind in ("weight", "bias")
    }
    for changed in (
        {name: 2 * value for name, value in own.items()},
        {"k_proj.weight": own["k_proj.weight"].as_subclass(Rounding)},
        narrow,
    ):
        tensors = own | changed
        expected = formula_of(tensors, *arrays)
        for path, absorption in PATHS:
            with force_kernel(path, absorption):
                output, _ = functional_call(attention, tensors, tuple(arrays))
            torch.testing.assert_close(output, expected)


def formula_of(tensors: dict[str, Tensor], x_q: Tensor, x_kv: Tensor) -> Tensor:
    def project(name: str, x: Tensor) -> Tensor:
        return torch_linear(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"])

    q, k, v = project("q_proj", x_q), project("k_proj", x_kv), project("v_proj", x_kv)
    return project("o_proj", (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1) @ v)


@pytest.fixture
def eager_for_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that takes oneDNN and chunks wherever it may."""
    monkeypatch.setattr("perceiver_core.kernels.onednn.onednn_is_faster", lambda: torch.backends.mkldnn.is_available())
    monkeypatch.setattr("perceiver_core.kernels.onednn.MIN_MULTIPLICATIONS", 1)
    monkeypatch.setattr("perceiver_core.kernels.sdpa.MAX_SCORES", 1)


@pytest.mark.usefixtures("eager_for_chunks")
@pytest.mark.parametrize("grad", [True, False])
def test_an_ensemble_by_vmap(attention_of: Callable[..., Any], arrays: list[Tensor], grad: bool) -> None:
    models = [attention_of().float().eval(), attention_of().float().eval()]
    x_q, x_kv = (x.detach().float() for x in arrays)
    parameters, buffers = stack_module_state(models)
    with torch.set_grad_enabled(grad):
        together = vmap(lambda p, b: functional_call(models[0], (p, b), (x_q, x_kv))[0])(parameters, buffers)
        apart = torch.stack([model(x_q, x_kv)[0] for model in models])
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=1e-4)


@pytest.mark.usefixtures("eager_for_chunks")
def test_custom_kernels_require_plain_tensors() -> None:
    plain, special = torch.randn(40, 40), torch.randn(40, 40).as_subclass(Rounding)
    assert prefers_onednn(1, plain, nn.Parameter(plain)) == torch.backends.mkldnn.is_available()
    assert not prefers_onednn(1, plain, special)
    expected = torch_linear((plain * 4).round() / 4, special.as_subclass(Tensor))
    torch.testing.assert_close(linear(plain, special), expected)
    layer = Linear(40, 40, bias=False)
    layer.weight = nn.Parameter(special)
    torch.testing.assert_close(layer(plain), expected)
    q, k, v = (plain[None, None].as_subclass(Rounding) for _ in range(3))
    assert type(attend(q, k, v)[0]) is Rounding


@pytest.mark.slow
def test_weights_that_are_distributed_tensors(
    attention_of: Callable[..., Any], arrays: list[Tensor], one_process: Any
) -> None:
    attention = attention_of()
    expected = with_gradients(formula(attention, *arrays), attention, arrays)
    whole = [Replicate()]
    for layer in attention.children():
        for name, parameter in [*layer.named_parameters()]:
            setattr(layer, name, nn.Parameter(distribute_tensor(parameter.detach(), one_process, whole)))
    given = [distribute_tensor(x.detach(), one_process, whole).requires_grad_() for x in arrays]
    assert type(attention.k_proj.weight) is DTensor
    for path, absorption in ((None, None), ("plain", "inputs"), ("plain", "queries")):
        with force_kernel(path, absorption):
            output = attention(*given)[0]
        grads = torch.autograd.grad(output.sum(), [*given, attention.k_proj.weight])
        torch.testing.assert_close(output.full_tensor(), expected["output"])
        assert all(type(grad) is DTensor for grad in grads)


@pytest.fixture
def one_process(tmp_path: Any) -> Iterator[Any]:
    """A mesh of this process alone."""
    if not torch.distributed.is_gloo_available():
        pytest.skip("torch is built without gloo")
    if torch.distributed.is_initialized():  # by a distributed run of another test in this process
        torch.distributed.destroy_process_group()
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield torch.distributed.init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()


def test_weights_of_a_tensor_subclass_may_be_offloaded() -> None:
    layer = nn.Linear(4, 4).double()
    layer.weight = nn.Parameter(layer.weight.detach().as_subclass(Rounding))
    x, grads = torch.randn(3, 4, dtype=torch.float64, requires_grad=True), []
    for policy in (ActivationPolicy(), ActivationPolicy(offloading=True), ActivationPolicy(True, True)):
        grads.append(torch.autograd.grad(policy(layer, x).square().sum(), [x, layer.bias]))
    torch.testing.assert_close(grads[1:], grads[:1] * 2)


def test_hooks_get_all_output_queries_at_once(
    build: Callable[..., Any], batch: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perceiver_core.perceiver_io.MAX_QUERIES_PER_CHUNK", 4)
    model, lengths = build().eval(), []
    decode = type(model.decoder).forward
    monkeypatch.setattr(
        type(model.decoder), "forward", lambda self, q, *args: lengths.append(q.shape[1]) or decode(self, q, *args)
    )
    with torch.no_grad():
        expected = model(batch)
        assert lengths == [4, 4, 3]
        for module in (model.decoder, model.decoder.cross_attention_layer.mlp, model.output_adapter.linear):
            seen: list[int] = []
            handle = module.register_forward_hook(lambda _, inputs, output, seen=seen: seen.append(output.shape[1]))
            torch.testing.assert_close(model(batch), expected)
            handle.remove()
            assert seen == [11]
