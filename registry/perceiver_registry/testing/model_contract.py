"""Checks of adapters in a small model. The docstring of a check is its description."""

from __future__ import annotations

import copy
import functools
import inspect
import io
import pickle
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import SkipTest

import torch
from torch import Tensor, nn

from perceiver_core import InputAdapter, Model, OutputAdapter
from perceiver_registry.testing.batches import (
    clone,
    difference,
    map_tensors,
    move,
    problems_of_adapted,
    rows,
    tensors_of,
)
from perceiver_registry.testing.checks import Contract, expect, expect_none
from perceiver_registry.testing.subjects import BATCH_SIZE, AdapterSubject, example_reader

CONTRACT = Contract()

WORKS = ("output_is_finite",)
"""Prerequisite of most checks: a model that runs."""

REPEATABLE = (*WORKS, "is_deterministic")
"""Prerequisites of checks that compare two runs."""

TRIES = 4
"""Random batches to try until one has padding, or every parameter has had a gradient. Arbitrary."""


# Inputs and outputs


@CONTRACT.check(kind="input", needs=["builds_from_config"])
def example_batch_is_valid(subject: AdapterSubject) -> None:
    """`example_batch` returns a dict of random inputs with the requested number of examples, drawn only from the given
    generator."""
    adapter = subject.model().input_adapter

    def batch(size: int) -> Any:
        return adapter.example_batch(size, torch.Generator().manual_seed(size))

    for size in (1, BATCH_SIZE):
        found = batch(size)
        expect(
            isinstance(found, Mapping) and list(tensors_of(found)), f"it returns {type(found).__name__}, not a batch"
        )
        sizes = {len(tensor) for tensor in tensors_of(found)}
        expect(sizes == {size}, f"batch_size={size} returns {', '.join(map(str, sorted(sizes)))} examples")
        wrong = difference(found, batch(size))
        expect(wrong is None, f"two generators with one seed give different batches: {wrong}")


@CONTRACT.check(kind="input", needs=["example_batch_is_valid"])
def input_array_has_expected_shape(subject: AdapterSubject) -> None:
    """`forward` returns AdaptedInput(x, pad_mask, context): x is a floating point array (b, m, c) with
    c = num_input_channels, pad_mask is None or boolean (b, m), context has tensors (b, o, ...) or (b, 1, ...). It
    accepts one example as well as several."""
    adapter = subject.model().input_adapter
    for size in (1, BATCH_SIZE):
        adapted = adapter(subject.batch(size))
        expect_none(problems_of_adapted(adapted, adapter.num_input_channels, size))


@CONTRACT.check(kind="output", needs=["builds_from_config"])
def queries_have_expected_shape(subject: AdapterSubject) -> None:
    """The query provider returns queries (b or 1, o, f) with f = num_query_channels, and for positions (b, p) the
    queries at these positions (b, p, f)."""
    model = subject.model()
    adapted = model.input_adapter(subject.batch())
    provider = model.output_adapter.query_provider
    queries = provider(adapted)
    shape, channels = tuple(queries.shape), provider.num_query_channels
    fits = queries.dim() == 3 and shape[0] in (1, BATCH_SIZE) and shape[2] == channels
    expect(fits, f"queries of shape {shape} for {BATCH_SIZE} examples and num_query_channels={channels}")
    positions = _positions(shape[1])
    found = provider(adapted, positions)
    expected = queries.expand(BATCH_SIZE, -1, -1).gather(1, positions[..., None].expand(-1, -1, channels))
    wrong = difference(found, expected)
    expect(wrong is None, f"for positions {tuple(positions.shape)} the queries differ from all queries there: {wrong}")


@CONTRACT.check(needs=["builds_from_config", "input_array_has_expected_shape", "queries_have_expected_shape"])
def output_is_finite(subject: AdapterSubject) -> None:
    """A model with the adapter runs and returns finite numbers for random inputs."""
    model = subject.model()
    with torch.no_grad():
        output = model(subject.batch())
        finite = model.input_adapter(subject.batch()).x.isfinite().all()
    expect(finite, "the input array has values that are not finite")
    found = list(tensors_of(output))
    expect(found, f"the output is {type(output).__name__}, which has no tensors")
    expect(all(tensor.isfinite().all() for tensor in found), "the output has values that are not finite")


@CONTRACT.check(kind="input", needs=[*WORKS, "inputs_are_not_modified"])
def reads_match_spec(subject: AdapterSubject) -> None:
    """`reads` lists the batch entries that the adapter reads, which decide which data and tasks fit it. Entries that it
    reads by `batch.get`, which may be missing, may be left out. It may be empty for an adapter that is composed of
    others."""
    adapter = subject.model().input_adapter
    batch = _RecordingBatch(subject.batch())
    adapter(batch)
    read, declared = batch.read, set(subject.spec.reads)
    if not declared and _is_composed(adapter):
        raise SkipTest("the adapter is composed of others, which declare what they read")
    expect(not read - declared, f"it reads {_join(read - declared)}, which `reads`={subject.spec.reads} lacks")
    unread = declared - read - batch.optional
    expect(not unread, f"`reads` has {_join(unread)}, which it does not read")


@CONTRACT.check(kind="input", needs=WORKS)
def missing_entry_is_named(subject: AdapterSubject) -> None:
    """The adapter raises a KeyError with the entry's name if a batch lacks an entry that it needs."""
    adapter = subject.model().input_adapter
    batch = subject.batch()
    nested = [name for value in batch.values() if isinstance(value, Mapping) for name in value]
    _expect_key_error(adapter, {}, [*batch, *nested])
    for name, value in batch.items():
        rest = {other: entry for other, entry in batch.items() if other != name}
        _expect_key_error(adapter, rest, list(value) if isinstance(value, Mapping) else [name])


def _expect_key_error(adapter: nn.Module, batch: Any, names: list[str]) -> None:
    """Expect a KeyError with one of the names, or no error if the remaining entries suffice."""
    missing = " or ".join(map(repr, names))
    try:
        adapter(batch)
    except KeyError as error:
        expect(any(name in str(error) for name in names), f"the KeyError does not name {missing}: {error}")
    except Exception as error:
        raise AssertionError(f"without {missing} it raises {type(error).__name__}: {error}") from error
    else:
        expect(batch, "it accepts an empty batch")


@CONTRACT.check(kind="input", needs=[*WORKS, "linked_fields_exist"])
def accepts_matching_data(subject: AdapterSubject) -> None:
    """`check_data` accepts a data module whose attributes equal the linked config fields, and one without these
    attributes."""
    adapter, config = subject.model().input_adapter, subject.config()
    linked = {attribute: getattr(config, field) for field, attribute in subject.spec.links.items()}
    for attributes in ({}, linked):
        try:
            adapter.check_data(SimpleNamespace(**attributes))
        except Exception as error:
            raise AssertionError(f"check_data rejects data with {attributes or 'no attributes'}: {error}") from error


@CONTRACT.check(kind="input", needs=[*WORKS, "reader_is_valid"])
def reader_fits_adapter(subject: AdapterSubject) -> None:
    """The reader reads the inputs of its `example` and collates them to a batch that the adapter accepts."""
    model = subject.model()
    with tempfile.TemporaryDirectory() as folder:
        found = example_reader(subject.spec, model.input_adapter, Path(folder))
        if found is None:
            raise SkipTest("the spec has no reader with an `example`")
        reader, inputs = found
        examples = [reader.read(source) for source in reader.expand(inputs)]
    try:
        with torch.no_grad():
            output = model(reader.collate(examples))
    except Exception as error:
        described = f"{type(error).__name__}: {error}"
        raise AssertionError(f"the adapter rejects a batch of the reader's examples: {described}") from error
    sizes = {len(tensor) for tensor in tensors_of(output)}
    expect(sizes == {len(examples)}, f"the reader collates {len(examples)} inputs to a batch of {sizes} examples")


# Repeatable and independent results


@CONTRACT.check(needs=WORKS)
def is_deterministic(subject: AdapterSubject) -> None:
    """In evaluation mode a model returns the same output for the same batch each time."""
    model = subject.model()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        wrong = difference(model(subject.batch()), model(subject.batch()))
    expect(wrong is None, f"two runs differ: {wrong}")


@CONTRACT.check(needs=WORKS)
def inputs_are_not_modified(subject: AdapterSubject) -> None:
    """An adapter does not modify its arguments: the batch, the adapted input, the decoder's output."""
    for training in (False, True):
        model = subject.model().train(training)
        with torch.no_grad():
            if subject.kind == "input":
                _expect_unchanged(model.input_adapter, subject.batch())
            else:
                adapted = model.input_adapter(subject.batch())
                queries = model.output_adapter.query_provider(adapted)
                _expect_unchanged(model.output_adapter.query_provider, adapted)
                _expect_unchanged(model.output_adapter, model.decoder(queries, model.encoder(adapted)))


def _expect_unchanged(module: nn.Module, given: Any) -> None:
    before = clone(given)
    module(given)
    if isinstance(given, Mapping):
        names = [_join(set(batch)) for batch in (before, given)]
        expect(names[0] == names[1], f"it changes the batch's entries from {names[0]} to {names[1]}")
    wrong = difference(given, before)
    expect(wrong is None, f"it modifies its argument in place: {wrong}")


@CONTRACT.check(needs=REPEATABLE)
def examples_are_independent(subject: AdapterSubject) -> None:
    """In evaluation mode an example's output does not depend on the other examples of its batch."""
    model = subject.model()
    with torch.no_grad():
        together = model(subject.batch())
        for number in range(BATCH_SIZE):
            one = slice(number, number + 1)
            wrong = difference(model(rows(subject.batch(), one)), rows(together, one))
            expect(wrong is None, f"an example's output depends on the rest of its batch: {wrong}")


@CONTRACT.check(kind="input", needs=REPEATABLE)
def causal_inputs_are_independent(subject: AdapterSubject) -> None:
    """An input adapter with `is_causal` embeds each input by itself: if the inputs from any position on are replaced,
    the embeddings before it stay, and those from it on are those of the replacements."""
    adapter = subject.model().input_adapter
    if not adapter.is_causal:
        raise SkipTest("the input adapter is not causal")
    batch, other = (subject.batch(seed=seed) for seed in (0, 1))
    with torch.no_grad():
        first, second = (adapter(clone(each)).x for each in (batch, other))
        length = first.shape[1]
        for position in range(1, length):
            mixed = _join_inputs(batch, other, position, length)
            wrong = difference(adapter(mixed).x, torch.cat([first[:, :position], second[:, position:]], dim=1))
            expect(wrong is None, f"the embedding of an input depends on others (replaced from {position} on): {wrong}")


def _join_inputs(first: Mapping[str, Any], second: Mapping[str, Any], position: int, length: int) -> dict[str, Any]:
    """Return a batch with the inputs of one before a position, and those of another from it on."""
    return {
        name: torch.cat([value[:, :position], second[name][:, position:]], dim=1)
        if isinstance(value, Tensor) and value.dim() > 1 and value.shape[1] == length
        else value
        for name, value in first.items()
    }


@CONTRACT.check(kind="input", needs=[*REPEATABLE, "examples_are_independent"])
def padding_is_ignored(subject: AdapterSubject) -> None:
    """Content at padded positions does not change the latents. Positions are padded where a mask of the batch (an entry
    with "mask" in its name) is 0 or, in a batch without a mask, where pad_mask is True."""
    model = subject.model()
    with torch.no_grad():
        for seed in range(TRIES):
            batch = subject.batch(seed=seed)
            adapted = model.input_adapter(subject.batch(seed=seed))
            other = _with_other_padding(batch, adapted.pad_mask)
            changed = model.input_adapter(clone(other))
            defines_padding = difference(changed.pad_mask, adapted.pad_mask) is not None  # a token that means padding
            if defines_padding or difference(other, batch) is None:
                continue
            real = slice(None) if adapted.pad_mask is None else ~adapted.pad_mask.all(dim=1)
            wrong = difference(model.encoder(changed)[real], model.encoder(adapted)[real])
            expect(wrong is None, f"the latents depend on the content of padding: {wrong}")
            return
    raise SkipTest("no example batch has padding apart from its content")


@CONTRACT.check(kind="input", needs=[*REPEATABLE, "examples_are_independent"])
def embeddings_are_independent(subject: AdapterSubject) -> None:
    """`model.embed` returns finite embeddings (b, d), or latents (b, n, d) with `pool="none"`. An embedding does not
    depend on the other examples of the batch, nor on the amount of padding after its example. Skipped for architectures
    without `encode`."""
    model = subject.model()
    if type(model).encode is Model.encode:
        raise SkipTest("the architecture does not define `encode`")
    with torch.no_grad():
        latents, together = model.embed(subject.batch(), pool="none"), model.embed(subject.batch())
        shapes = tuple(latents.shape), tuple(together.shape)
        fits = latents.dim() == 3 and shapes == ((BATCH_SIZE, *shapes[0][1:]), (BATCH_SIZE, shapes[0][2]))
        expect(fits, f"latents of shape {shapes[0]} and embeddings of shape {shapes[1]} for {BATCH_SIZE} examples")
        expect(latents.isfinite().all() and together.isfinite().all(), "embeddings are not finite")
        for number in range(BATCH_SIZE):
            one = slice(number, number + 1)
            alone = rows(subject.batch(), one)
            wrong = difference(model.embed(clone(alone)), together[one])
            expect(wrong is None, f"an example's embedding depends on the rest of its batch: {wrong}")
            shorter = _without_trailing_padding(alone)
            ignores_content = difference(model.embed(_with_other_padding(alone, None)), together[one]) is None
            if shorter is not None and ignores_content and _is_accepted(model.input_adapter, shorter):
                wrong = difference(model.embed(shorter), together[one])
                expect(wrong is None, f"an example's embedding depends on the amount of padding after it: {wrong}")


def _without_trailing_padding(batch: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a batch of one example without the padding after its last input; None without such padding."""
    masks = [
        value for name, value in batch.items() if "mask" in name and isinstance(value, Tensor) and value.dim() == 2
    ]
    length = max((int(mask[0].bool().nonzero().max()) + 1 for mask in masks if mask.any()), default=0)
    if not length or length == masks[0].shape[1] or len({mask.shape for mask in masks}) > 1:
        return None
    return {
        name: value[:, :length] if isinstance(value, Tensor) and value.shape[:2] == masks[0].shape else value
        for name, value in batch.items()
    }


def _is_accepted(adapter: InputAdapter, batch: Mapping[str, Any]) -> bool:
    """Return whether an adapter accepts a batch; adapters of inputs of fixed length reject shorter ones."""
    try:
        adapter(clone(batch))
    except (ValueError, RuntimeError, IndexError):
        return False
    return True


def _with_other_padding(batch: Mapping[str, Any], pad_mask: Tensor | None) -> dict[str, Any]:
    """Return the batch with content of other positions at padded positions."""
    masks = [value for name, value in batch.items() if "mask" in name and isinstance(value, Tensor)]
    paddings = [~mask.bool() for mask in masks] or ([] if pad_mask is None else [pad_mask])
    changed: dict[str, Any] = {}
    for name, value in batch.items():
        if isinstance(value, Mapping):
            changed[name] = _with_other_padding(value, None)
        elif isinstance(value, Tensor) and "mask" not in name:
            changed[name] = _refilled(value, paddings)
        else:
            changed[name] = value
    return changed


def _refilled(value: Tensor, paddings: Sequence[Tensor]) -> Tensor:
    """Return a batch entry (b, m, ...) with content of other positions where all masks (b, m) of its shape are True."""
    matching = [padding for padding in paddings if padding.shape == value.shape[: padding.dim()]]
    if not matching:
        return value
    padding = functools.reduce(torch.logical_and, matching)
    content = value[~padding]
    if not len(content):
        return value
    value = value.clone()
    number = int(padding.sum())
    value[padding] = content[torch.randint(len(content), (number,), generator=torch.Generator().manual_seed(0))]
    return value


@CONTRACT.check(kind="output", needs=REPEATABLE)
def positions_are_independent(subject: AdapterSubject) -> None:
    """An output adapter handles each position independently: a model's output for positions, given as indices (b, p) or
    as a mask (b, o), equals its whole output at these positions. Skipped for a model that always computes all."""
    model = subject.model()
    if "positions" not in inspect.signature(model.forward).parameters:
        raise SkipTest("the model has no argument `positions`")

    def expect_output(positions: Tensor, part: Callable[[Tensor], Tensor], where: str) -> None:
        wrong = difference(model(subject.batch(), positions=positions), map_tensors(whole, part))
        expect(wrong is None, f"{where} the output differs from the whole output: {wrong}")

    with torch.no_grad():
        whole = model(subject.batch())
        num_positions = model.output_adapter.query_provider(model.input_adapter(subject.batch())).shape[1]
        several = _positions(num_positions)
        for positions in (several[:, :1], several) if num_positions > 1 else (several[:, :1],):
            part = functools.partial(_at, positions=positions, num_positions=num_positions)
            expect_output(positions, part, f"at {positions.shape[1]} positions")
        every_other = torch.arange(BATCH_SIZE * num_positions).view(BATCH_SIZE, num_positions) % 2 == 1
        for mask in (every_other, _mask_of_one_position(num_positions)):
            part = functools.partial(_where, mask=mask, num_positions=num_positions)
            expect_output(mask, part, f"at {int(mask.sum())} positions of a mask")


def _mask_of_one_position(num_positions: int) -> Tensor:
    """Return a mask that selects one position of one example."""
    mask = torch.zeros(BATCH_SIZE, num_positions, dtype=torch.bool)
    mask[1, -1] = True
    return mask


def _positions(num_positions: int) -> Tensor:
    """Return indices of some positions of each example, unsorted and with duplicates."""
    return (torch.arange(BATCH_SIZE)[:, None] * 2 + torch.tensor([3, 0, 3, 1])) % num_positions


def _at(whole: Tensor, positions: Tensor, num_positions: int) -> Tensor:
    if num_positions == 1:  # the dimension of positions may be squeezed
        return whole
    return whole[torch.arange(len(positions))[:, None], positions]


def _where(whole: Tensor, mask: Tensor, num_positions: int) -> Tensor:
    keeps_positions = whole.shape[:2] == mask.shape and (num_positions > 1 or whole.dim() > 2)
    return whole[mask] if keeps_positions else whole[mask[:, 0]]


# Dtypes and devices


@CONTRACT.check(needs=WORKS)
def follows_dtype(subject: AdapterSubject) -> None:
    """After `model.to(dtype)` the model accepts inputs of that dtype, and the input array has it."""
    for dtype in (torch.float64, torch.bfloat16):
        model, batch = subject.model().to(dtype), move(subject.batch(), dtype)
        with torch.no_grad():
            if subject.kind == "input":
                found = model.input_adapter(batch).x.dtype
                expect(found == dtype, f"after to({dtype}) the input array is {found}")
            model(batch)


@CONTRACT.check(needs=WORKS)
def runs_in_mixed_precision(subject: AdapterSubject) -> None:
    """Under torch.autocast with bfloat16 the model runs and returns finite numbers."""
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        output = subject.model()(subject.batch())
    expect(all(tensor.isfinite().all() for tensor in tensors_of(output)), "the output is not finite")


@CONTRACT.check(needs=WORKS)
def follows_device(subject: AdapterSubject) -> None:
    """All tensor attributes of an adapter are parameters or buffers, so that `model.to(device)` moves them, and the
    forward pass creates tensors on the input's device."""
    expect_none(
        f"{name} has a tensor that is neither a parameter nor a buffer (use register_buffer, with persistent=False if "
        "it is not part of the state)"
        for name in _stray_tensors(subject.adapter(subject.model()))
    )
    for device in ("meta", *_accelerators()):
        _run_on(device, subject.model(), subject.batch())


def _run_on(device: str, model: nn.Module, batch: Any) -> None:
    try:
        with torch.no_grad():
            outputs = list(tensors_of(model.to(device)(move(batch, device))))
    except (RuntimeError, NotImplementedError) as error:
        # Control flow may depend on values, which tensors on "meta" do not have.
        if device == "meta" and "cpu" not in str(error):
            return
        raise AssertionError(f"on device {device!r} it fails: {' '.join(str(error).split())[:200]}") from error
    left = {str(tensor.device) for tensor in outputs if tensor.device.type != torch.device(device).type}
    expect(not left, f"on device {device!r}, its output is on {_join(left)}")


def _accelerators() -> list[str]:
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return [accelerator.type] if accelerator else []


def _stray_tensors(module: nn.Module) -> Iterator[str]:
    for name, child in module.named_modules():
        kept = {id(tensor) for tensor in (*child.parameters(), *child.buffers())}
        for attribute, value in vars(child).items():
            registered = attribute in ("_parameters", "_buffers", "_modules")
            if not registered and any(id(tensor) not in kept for tensor in tensors_of(value)):
                yield f"{type(module).__name__}.{name + '.' if name else ''}{attribute}"


# State


@CONTRACT.check(needs=REPEATABLE)
def state_dict_restores(subject: AdapterSubject) -> None:
    """The state dict is complete: saved, read with `weights_only=True` and loaded with `strict=True` into a new model
    with the same config, it restores the outputs."""
    model, file = subject.model(seed=1), io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other = subject.model(seed=2)
    other.load_state_dict(torch.load(file, weights_only=True), strict=True)
    with torch.no_grad():
        wrong = difference(other(subject.batch()), model(subject.batch()))
    expect(wrong is None, f"a model with the same state has another output: {wrong}")


@CONTRACT.check(needs=REPEATABLE)
def can_be_copied(subject: AdapterSubject) -> None:
    """A model can be copied and pickled, also after use, and the copy has the same outputs, which weight averaging and
    multiprocessing need."""
    model = subject.model()
    with torch.no_grad():
        expected = model(subject.batch())
        copies = {"deepcopy": copy.deepcopy, "pickle": lambda each: pickle.loads(pickle.dumps(each))}
        for name, function in copies.items():
            try:
                copied = function(model)
            except Exception as error:
                raise AssertionError(f"{name} fails: {type(error).__name__}: {error}") from error
            wrong = difference(copied(subject.batch()), expected)
            expect(wrong is None, f"the copy by {name} has another output: {wrong}")


@CONTRACT.check(needs=WORKS)
def gradients_flow(subject: AdapterSubject) -> None:
    """In training each parameter that requires a gradient gets a finite gradient that is not zero everywhere, and the
    encoder's latents as well."""
    model = subject.model().train()
    trained = {name: each for name, each in subject.adapter(model).named_parameters() if each.requires_grad}
    parameters = {**trained, "the encoder's latents": model.encoder.latents}
    without_gradient = set(parameters)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for seed in range(TRIES):
            model.zero_grad()
            random_loss(model(subject.batch(2 * BATCH_SIZE, seed))).backward()
            for name, parameter in parameters.items():
                if parameter.grad is not None:
                    expect(parameter.grad.isfinite().all(), f"the gradient of {name} is not finite")
                    if parameter.grad.any():
                        without_gradient.discard(name)
            if not without_gradient:
                return
            with torch.no_grad():  # parameters that are 0 may block gradients of others
                for parameter in trained.values():
                    parameter.add_(0.1 * torch.randn_like(parameter))
    raise AssertionError(f"no gradient reaches {_join(without_gradient)}")


def random_loss(output: Any) -> Tensor:
    """Return a loss with random weights for each value of an output."""
    losses = [(tensor * torch.randn_like(tensor)).sum() for tensor in tensors_of(output) if tensor.requires_grad]
    expect(losses, "the output has no gradient")
    return torch.stack(losses).sum()


@CONTRACT.check(needs=WORKS)
def supports_local_init(subject: AdapterSubject) -> None:
    """A model with a `position_layout` can be initialised with init="local", and the layout's table is a parameter."""
    model = subject.model()
    adapter = subject.adapter(model)
    inputs = model.input_adapter.position_layout()
    layout = inputs if isinstance(adapter, InputAdapter) else adapter.query_provider.position_layout(inputs)
    if layout is not None and layout.table is not None:
        expect(
            any(layout.table is each for each in model.parameters()),
            "the layout's table is not a parameter, so that its initialisation is lost",
        )
    if inputs is None:
        raise SkipTest("the input has no position layout")
    with torch.no_grad():
        output = subject.model(init="local")(subject.batch())
    expect(all(tensor.isfinite().all() for tensor in tensors_of(output)), 'with init="local" the output is not finite')


# Compilers


@CONTRACT.check(needs=REPEATABLE)
def exports(subject: AdapterSubject) -> None:
    """`torch.export.export` exports the model with a dynamic batch size and the same outputs. (Skip this check for an
    adapter whose control flow depends on values.)"""
    model, batch = subject.model(), subject.batch()
    batch_size = torch.export.Dim("batch_size", min=1)
    shapes: Any = map_tensors(batch, lambda _: {0: batch_size})  # type: ignore[arg-type, return-value]
    with torch.no_grad():
        program = torch.export.export(model, (batch,), dynamic_shapes=(shapes,), strict=False).module()
        for size in (BATCH_SIZE, BATCH_SIZE + 1):
            wrong = difference(program(subject.batch(size)), model(subject.batch(size)))
            expect(wrong is None, f"for {size} examples the exported program has another output: {wrong}")


@CONTRACT.check(needs=REPEATABLE)
def compiles(subject: AdapterSubject) -> None:
    """The adapter has the same outputs under `torch.compile`."""
    model, batch = subject.model(), subject.batch()
    adapter: Any = subject.adapter(model)
    with torch.no_grad():
        if isinstance(adapter, OutputAdapter):
            adapted = model.input_adapter(batch)
            given = model.decoder(adapter.query_provider(adapted), model.encoder(adapted))
        else:
            given = batch
        expected = adapter(given)
        torch.compiler.reset()
        wrong = difference(torch.compile(adapter, backend="eager")(given), expected)
    expect(wrong is None, f"the compiled adapter has another output: {wrong}")


# Helpers


class _RecordingBatch(Mapping[str, Any]):
    """Batch that records which of its entries are read, those that may be missing apart."""

    def __init__(self, batch: Mapping[str, Any]):
        self.batch = batch
        self.read: set[str] = set()
        self.optional: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        value = self.batch[name]
        self.read.add(name)
        return value

    def get(self, name: str, default: Any = None) -> Any:
        self.optional.add(name)
        return self.batch.get(name, default)

    def __iter__(self) -> Iterator[str]:
        return iter(self.batch)

    def __len__(self) -> int:
        return len(self.batch)


def _is_composed(adapter: nn.Module) -> bool:
    return any(isinstance(module, InputAdapter) for module in adapter.modules() if module is not adapter)


def _join(names: set[str]) -> str:
    return ", ".join(sorted(names))
