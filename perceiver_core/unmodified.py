"""Checks for unmodified layers, the only ones whose weights a kernel may read directly.

Adapters such as LoRA, hooks, parametrizations, quantization and distributed tensors change the result of calling a
layer. Where one of them is found, the layer is called as a module, and the plain formula is computed.
"""

from __future__ import annotations

from typing import TypeGuard

from torch import Tensor, nn
from torch._C import _are_functorch_transforms_active
from torch._subclasses import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor
from torch.nn.modules import module as torch_module

PLAIN_TYPES = (Tensor, nn.Parameter)
"""Tensor types whose operations have their ordinary meaning. Subclasses may give them another."""

TRACED_TYPES = (FakeTensor, FunctionalTensor)
"""Types that replace plain tensors while ``torch.export`` traces a model."""

GLOBAL_HOOKS = (
    torch_module._global_forward_hooks,
    torch_module._global_forward_pre_hooks,
    torch_module._global_backward_hooks,
    torch_module._global_backward_pre_hooks,
)


def has_hooks(module: nn.Module) -> bool:
    """Return whether calling a module runs hooks: its own, or those registered for all modules."""
    own = module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    return bool(own) or any(GLOBAL_HOOKS)


def are_plain_tensors(*tensors: Tensor) -> bool:
    """Return whether operations on these tensors have their ordinary meaning.

    They have another one for tensor subclasses, and within transforms of ``torch.func`` such as ``vmap``.
    """
    return all(type(tensor) in PLAIN_TYPES for tensor in tensors) and not _are_functorch_transforms_active()


def is_unmodified_linear(module: nn.Module, *types: type[nn.Linear]) -> TypeGuard[nn.Linear]:
    """Return whether calling a module has no side effects and returns ``x @ weight.T + bias``.

    Args:
        module: module to check.
        types: classes that compute this. Subclasses, such as those of parametrized layers, may compute anything.
    """
    if type(module) not in types or "forward" in module.__dict__ or has_hooks(module):
        return False
    known = PLAIN_TYPES + TRACED_TYPES
    return type(module.weight) in known and (module.bias is None or type(module.bias) in known)
