"""Perceiver AR in float64 with large weights, against the formula; its cache against the uncached formula.

With small weights attention is nearly uniform, and a wrong cache differs little.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from perceiver_core import (
    AdaptedInput,
    DecoderConfig,
    EncoderConfig,
    InputAdapter,
    InputQueryProvider,
    OutputAdapter,
    PerceiverAR,
    PerceiverARConfig,
    TrainableQueryProvider,
)
from perceiver_core.perceiver_ar import draw_positions, grid

M, N, C = 16, 6, 20
LENGTH = 40
"""Inputs of a whole sequence: latents grow, then the prefix, then the window slides."""

VARIANTS = {
    "default": {"prefix_dropout": 0.5},
    "official": {"biases": True, "activation": "squared_relu", "rotary_fraction": 0.3, "residual_dropout": 0.1},
    "absolute": {"absolute_positions": True, "rotary_fraction": 0.0, "output_norm": False},
    "two-norms": {
        "absolute_positions": True,
        "separate_prefix_norm": True,
        "num_rotary_layers": 1,
        "rotary_base": 100.0,
        "output_norm": False,
    },
    "two-norms-rotary": {"separate_prefix_norm": True, "rotary_fraction": 1.0, "num_rotary_layers": 1},
}


class ArrayInput(InputAdapter):
    """The array ``batch["x"]`` (b, m, c) itself."""

    is_causal = True

    def __init__(self):
        super().__init__(C)

    def forward(self, batch):
        return AdaptedInput(batch["x"], batch.get("pad_mask"))


class LinearOutput(OutputAdapter):
    """A linear layer."""

    def __init__(self, num_outputs=3):
        super().__init__(InputQueryProvider(C))
        self.linear = nn.Linear(C, num_outputs)

    def forward(self, decoded):
        return self.linear(decoded)


def make_config(encoder=None, decoder=None, **values) -> PerceiverARConfig:
    encoder_values = {
        "num_cross_attention_heads": 2,
        "num_self_attention_heads": 5,
        "num_self_attention_layers_per_block": 2,
        "cross_attention_widening_factor": 2,
        "num_self_attention_v_channels": 15,
    }
    sizes = {"num_latents": N, "max_seq_len": M, "num_latent_channels": C}
    return PerceiverARConfig(
        EncoderConfig(**encoder_values | (encoder or {})), DecoderConfig(**(decoder or {})), **sizes | values
    )


def build(variant="default", **values) -> PerceiverAR:
    """A model for evaluation, with random weights that make attention sharp."""
    model = PerceiverAR(make_config(**VARIANTS[variant] | values), ArrayInput(), LinearOutput())
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            scale = 2.0 / math.sqrt(parameter.shape[-1]) if parameter.dim() > 1 else 0.7
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return model.double().eval()


def sequences(*shape) -> Tensor:
    return torch.randn(*shape, C, dtype=torch.float64) * 2


def assert_same(actual, expected):
    torch.testing.assert_close(actual, expected, atol=1e-10, rtol=0)


# The formula, for one example, with a dense mask.


def rotate(x: Tensor, positions: list[int], config: PerceiverARConfig) -> Tensor:
    """Rotate the channels of heads (h, m, k), pairs of them as complex numbers."""
    count = int(config.rotary_fraction * x.shape[-1]) // 2
    if not count:
        return x
    frequencies = torch.tensor([config.rotary_base ** -(i / count) for i in range(count)], dtype=torch.float64)
    angles = torch.outer(torch.tensor(positions, dtype=torch.float64), frequencies)
    pairs = torch.view_as_complex(x[..., : 2 * count].unflatten(-1, (-1, 2)).contiguous())
    turned = torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).flatten(-2)
    return torch.cat([turned, x[..., 2 * count :]], dim=-1)


def attention(module, queries: Tensor, inputs: Tensor, positions: list[int], config, rotary: bool) -> Tensor:
    """Attention of the last positions to all positions up to their own."""
    q, k, v = (
        projection(x).unflatten(-1, (module.num_heads, -1)).transpose(0, 1)
        for projection, x in ((module.q_proj, queries), (module.k_proj, inputs), (module.v_proj, inputs))
    )
    n, m = len(queries), len(inputs)
    if rotary:
        q, k = rotate(q, positions[m - n :], config), rotate(k, positions, config)
    is_seen = torch.arange(m) <= torch.arange(m - n, m)[:, None]
    scores = (q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])).where(is_seen, -math.inf)
    return module.o_proj((scores.softmax(-1) @ v).transpose(0, 1).flatten(1))


def mlp(layer, x: Tensor, config) -> Tensor:
    activate = gelu if config.activation == "gelu" else lambda h: h.clamp(min=0) ** 2
    return x + layer.mlp.output(activate(layer.mlp.hidden(layer.mlp_norm(x))))


@torch.no_grad()
def formula(model: PerceiverAR, x: Tensor, num_prefix: int, kept: list[int] | None = None) -> Tensor:
    """Outputs (n, f) for the inputs (m, c) after the prefix, of which only some positions may be kept."""
    config, encoder = model.config, model.encoder
    if encoder.position_embedding is not None:
        x = x + encoder.position_embedding.weight[: len(x)]
    (cross,), (layers,) = encoder.cross_attention_layers, encoder.self_attention_blocks
    positions = [*(range(num_prefix) if kept is None else kept), *range(num_prefix, len(x))]
    z, prefix = x[num_prefix:], x[positions[: num_prefix - len(x)]]
    own_norm = cross.q_norm if config.separate_prefix_norm else cross.kv_norm
    inputs = torch.cat([cross.kv_norm(prefix), own_norm(z)])
    z = z + attention(cross.attention, cross.q_norm(z), inputs, positions, config, True)
    z = mlp(cross, z, config)
    for index, layer in enumerate(layers):
        rotary = config.num_rotary_layers is None or index < config.num_rotary_layers
        normed = layer.norm(z)
        z = z + attention(layer.attention, normed, normed, positions[-len(z) :], config, rotary)
        z = mlp(layer, z, config)
    return model.output_adapter(model.output_norm(z))


def uncached(model: PerceiverAR, x: Tensor, t: int) -> Tensor:
    """The definition: the output (f) after t inputs, of the window and latents that t alone determines."""
    stride = model.config.stride
    start, latent_start = (stride * math.ceil(max(0, t - size) / stride) for size in (model.config.max_seq_len, N))
    return formula(model, x[start:t], latent_start - start)[-1]


@pytest.fixture(scope="module")
def expected():
    """A function that returns a model, a sequence, and the outputs after each of its inputs, computed once."""
    results = {}

    def expected(variant, stride, length=LENGTH):
        if (variant, stride) not in results:
            torch.manual_seed(3)
            model, x = build(variant, refill_stride=stride), sequences(length)
            results[variant, stride] = model, x, torch.stack([uncached(model, x, t) for t in range(1, length + 1)])
        return results[variant, stride]

    return expected


each_variant = pytest.mark.parametrize("variant", VARIANTS)
STRIDES = (1, 3, N)
each_stride = pytest.mark.parametrize("stride", STRIDES)


@pytest.mark.parametrize("length", [1, N - 1, N, N + 1, M])
@each_variant
def test_forward_equals_the_formula(variant, length):
    model, x = build(variant), sequences(2, length)
    num_prefix = max(0, length - N)
    assert_same(model({"x": x}), torch.stack([formula(model, each, num_prefix) for each in x]))


PROMPTS = (1, N, N + 1, M, M + 1)


@pytest.mark.parametrize(
    ("variant", "stride", "prompt"),
    [
        (variant, STRIDES[(first + second) % len(STRIDES)], prompt)  # each pair of a variant and a stride, or a prompt
        for first, variant in enumerate(VARIANTS)
        for second, prompt in enumerate(PROMPTS)
    ],
)
def test_cached_equals_uncached_at_every_length(expected, variant, stride, prompt):
    model, x, outputs = expected(variant, stride)
    cache = model.create_cache()
    actual = [model.extend({"x": x[None, :prompt]}, cache)]
    actual += [model.extend({"x": x[None, t : t + 1]}, cache) for t in range(prompt, LENGTH)]
    assert_same(torch.cat(actual, dim=1)[0], outputs[prompt - 1 :])


@each_stride
@each_variant
def test_scores_equal_decoding(expected, variant, stride):
    model, x, outputs = expected(variant, stride)
    assert_same(model.score({"x": x[None]})[0], outputs)
    assert_same(model.score({"x": x[None]}, num_outputs=11)[0], outputs[-11:])


@each_stride
@each_variant
def test_a_split_prompt_equals_a_whole_one(expected, variant, stride):
    model, x, outputs = expected(variant, stride)
    cache, actual = model.create_cache(), []
    for part in x.split([5, 1, 9, 20, 2, 3]):
        actual.append(model.extend({"x": part[None]}, cache, num_outputs=len(part)))
    assert_same(torch.cat(actual, dim=1)[0], outputs)


@each_stride
@each_variant
def test_truncating_and_feeding_again_changes_nothing(expected, variant, stride):
    model, x, outputs = expected(variant, stride)
    cache = model.create_cache()
    model.extend({"x": x[None]}, cache)
    for length in (39, 36, 31, 20, 19, 17, 13, 7, 6, 2, 0):
        cache.truncate(min(length + 2, len(cache)))
        wrong = sequences(1, 3)
        model.extend({"x": wrong}, cache)
        cache.truncate(length)
        assert len(cache) == length
        assert_same(
            model.extend({"x": x[None, length : length + 4]}, cache)[0, 0], outputs[min(length + 4, LENGTH) - 1]
        )


@each_stride
@each_variant
def test_batches_equal_single_examples_whatever_their_padding(variant, stride):
    model, lengths, steps = build(variant, refill_stride=stride), [3, 11, 23], 10
    rows = [sequences(length + steps) for length in lengths]
    pad_mask = torch.arange(23) < 23 - torch.tensor(lengths)[:, None]
    results = []
    for padding in (0.0, 1e3):
        prompts = torch.full((3, 23, C), padding, dtype=torch.float64)
        for row, length, prompt in zip(rows, lengths, prompts, strict=True):
            prompt[23 - length :] = row[:length]
        cache, nowhere = model.create_cache(), torch.zeros(3, 1, dtype=torch.bool)
        outputs = [model.extend({"x": prompts, "pad_mask": pad_mask}, cache, num_outputs=3)]
        for step in range(steps):
            new = torch.stack([row[length + step] for row, length in zip(rows, lengths, strict=True)])
            outputs.append(model.extend({"x": new[:, None], "pad_mask": nowhere}, cache))
        results.append(torch.cat(outputs, dim=1))
    assert torch.equal(*results)
    for row, length, output in zip(rows, lengths, results[0], strict=True):
        assert_same(output, torch.stack([uncached(model, row, t) for t in range(length - 2, length + steps + 1)]))


@each_variant
def test_padding_may_be_split(variant):
    model, x = build(variant), sequences(2, 30)
    pad_mask = torch.arange(30) < torch.tensor([[17], [0]])
    whole, cache = model.score({"x": x, "pad_mask": pad_mask}, num_outputs=3), model.create_cache()
    for part, mask in zip(x.split(7, dim=1), pad_mask.split(7, dim=1), strict=True):
        output = model.extend({"x": part, "pad_mask": mask}, cache)
    assert_same(output[:, 0], whole[:, -1])


@each_variant
def test_truncating_into_padding(variant):
    model, x = build(variant), sequences(1, 20)
    cache = model.create_cache()
    model.extend({"x": sequences(1, 9), "pad_mask": torch.arange(9)[None] < 7}, cache)
    cache.truncate(4)
    output = model.extend({"x": x, "pad_mask": torch.zeros(1, 20, dtype=torch.bool)}, cache)
    assert_same(output[0, 0], uncached(model, x[0], 20))


@each_variant
def test_scores_of_a_batch_padded_on_the_right(expected, variant):
    model, x, outputs = expected(variant, 3)
    batch = {"x": torch.stack([x, x]), "pad_mask": torch.arange(LENGTH) >= torch.tensor([[29], [LENGTH]])}
    actual = model.score(batch)
    assert_same(actual[0, :29], outputs[:29])
    assert_same(actual[1], outputs)


@pytest.mark.parametrize(("stride", "prompt", "starts"), [(2, 19, [14, 0, 5]), (N, 12, [5, 0, 8])])
@each_variant
def test_selected_rows_continue_their_sequences(variant, stride, prompt, starts):
    """The row with the first latents is left out, and another one repeated."""
    model, x = build(variant, refill_stride=stride), sequences(3, 36)
    cache, pad_mask = model.create_cache(), torch.arange(prompt) < torch.tensor(starts)[:, None]
    model.extend({"x": x[:, :prompt], "pad_mask": pad_mask}, cache)
    rows = torch.tensor([2, 0, 0]) if stride == 2 else torch.tensor([0, 0])
    cache.select_rows(rows)
    for t in range(prompt, 36):
        new = {"x": x[rows, t : t + 1], "pad_mask": torch.zeros(len(rows), 1, dtype=torch.bool)}
        output = model.extend(new, cache)
        for row, index in enumerate(rows.tolist()[:2]):
            assert_same(output[row, 0], uncached(model, x[index, starts[index] :], t + 1 - starts[index]))


@pytest.mark.parametrize("length", [N - 2, N, N + 2, M])
@each_variant
def test_left_padding_of_forward_changes_nothing(variant, length):
    model, x = build(variant), sequences(1, length)
    padding = sequences(1, M - length)
    pad_mask = (torch.arange(M) < M - length)[None]
    output, expected = model({"x": torch.cat([padding, x], dim=1), "pad_mask": pad_mask}), model({"x": x})
    assert_same(output[:, -expected.shape[1] :], expected)


@each_variant
def test_all_outputs_equal_scores_at_the_stride_of_the_latents(variant):
    model, x = build(variant, refill_stride=N), sequences(2, M - 1)
    assert_same(model({"x": x}, all_outputs=True), model.score({"x": x}))


def test_as_many_latents_as_inputs_are_a_causal_transformer():
    """With one norm for queries and keys, the cross-attention is one more layer of self-attention."""
    model = build(num_latents=M, encoder={"num_cross_attention_heads": 5, "cross_attention_widening_factor": 1})
    cross = model.encoder.cross_attention_layers[0]
    cross.kv_norm.load_state_dict(cross.q_norm.state_dict())
    x = sequences(2, M)
    z = x
    positions, mask = torch.arange(M), torch.full((M, M), -math.inf, dtype=torch.float64).triu(1)
    angles = positions[:, None].double()  # 2 rotated channels of a head of 4: one frequency, of 1

    def turn(y):
        a, b = y[..., :1], y[..., 1:2]
        return torch.cat([a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos(), y[..., 2:]], -1)

    for norm, layer in ((cross.q_norm, cross), *((each.norm, each) for each in model.encoder.self_attention_blocks[0])):
        projections = (getattr(layer.attention, f"{name}_proj")(norm(z)) for name in "qkv")
        q, k, v = (each.unflatten(-1, (5, -1)).transpose(1, 2) for each in projections)
        weights = (turn(q) @ turn(k).transpose(-2, -1) / math.sqrt(q.shape[-1]) + mask).softmax(-1)
        z = z + layer.attention.o_proj((weights @ v).transpose(1, 2).flatten(2))
        z = z + layer.mlp(layer.mlp_norm(z))
    assert_same(model({"x": x}), model.output_adapter(model.output_norm(z)))


@each_variant
def test_outputs_depend_on_all_inputs_before_them_alone(variant):
    model, x = build(variant), sequences(1, M).requires_grad_()
    for all_outputs in (False, True):
        output = model({"x": x}, all_outputs=all_outputs)
        first = M - output.shape[1]
        for t in range(output.shape[1]):
            (grad,) = torch.autograd.grad(output[0, t].sum(), x, retain_graph=True)
            assert not grad[0, first + t + 1 :].any()
            assert grad[0, : first + t + 1].abs().amax(dim=1).min() > 0


@pytest.mark.parametrize("shift", [1, 1000])
def test_rotary_outputs_do_not_depend_on_a_shift_of_positions(shift):
    model, x = build(rotary_fraction=1.0), sequences(2, M)
    columns = torch.arange(M)
    expected = model.encoder(x[:, -N:], x, columns)
    assert_same(model.encoder(x[:, -N:], x, columns + shift), expected)
    assert (model.encoder(x[:, -N:], x, 2 * columns) - expected).abs().max() > 0.1


def test_large_positions_lose_no_precision():
    model, x = build(rotary_fraction=1.0).float(), sequences(2, M).float()
    columns = torch.arange(M)
    shifted = model.encoder(x[:, -N:], x, columns + 2**30)
    torch.testing.assert_close(shifted, model.encoder(x[:, -N:], x, columns), atol=2e-3, rtol=1e-3)


@each_variant
def test_prefix_dropout_keeps_the_drawn_inputs(variant):
    model, x = build(variant, prefix_dropout=0.35, residual_dropout=0.0).train(), sequences(2, M)
    kept = draw_positions(2, M - N, M - N - 3, torch.Generator().manual_seed(8), x.device)  # int(0.35 * 10) dropped
    assert kept.tolist() != [[*range(7)]] * 2
    assert all(len(set(row)) == 7 and max(row) < M - N for row in kept.tolist())
    actual = model({"x": x}, generator=torch.Generator().manual_seed(8))
    assert_same(actual, torch.stack([formula(model, x[i], M - N, kept[i].tolist()) for i in range(2)]))
    assert_same(model.eval()({"x": x}), torch.stack([formula(model, each, M - N) for each in x]))


@each_variant
def test_prefix_dropout_of_padding_changes_nothing(variant):
    """Padding is drawn like inputs."""
    model, x = build(variant, prefix_dropout=0.35, residual_dropout=0.0).train(), sequences(1, M)
    kept = draw_positions(1, M - N, M - N - 3, torch.Generator().manual_seed(8), x.device)[0]
    batch = {"x": x, "pad_mask": torch.arange(M)[None] < 4}
    actual = model(batch, generator=torch.Generator().manual_seed(8))
    assert_same(actual[0], formula(model, x[0, 4:], M - N - 4, [i - 4 for i in kept.tolist() if i >= 4]))


def test_no_prefix_dropout_is_a_no_op_in_training():
    model, x = build(prefix_dropout=0.0), sequences(2, M)
    assert torch.equal(model.train()({"x": x}), model.eval()({"x": x}))


def test_prefix_dropout_of_all_outputs_keeps_the_own_block():
    """With one input before the second block left, and none before the first."""
    model, x = build(prefix_dropout=0.9).train(), sequences(1, 2 * N)
    output = model({"x": x}, all_outputs=True, generator=torch.Generator().manual_seed(1))
    kept = draw_positions(1, N, 1, torch.Generator().manual_seed(1), x.device)[0].tolist()
    assert_same(output[0], torch.cat([formula(model, x[0, :N], 0), formula(model, x[0], N, kept)]))


def test_residual_dropout_acts_in_training_only():
    model, x = build("official", prefix_dropout=0.0), sequences(1, M)
    assert torch.equal(model({"x": x}), model({"x": x}))
    model.train()
    assert not torch.equal(model({"x": x}), model({"x": x}))


@pytest.mark.parametrize("policy", ["activation_checkpointing", "activation_offloading"])
def test_activation_policies_change_no_gradient(policy):
    gradients, x = [], sequences(2, M)
    for values in ({}, {policy: True}):
        model = build(**values).train()
        model({"x": x}, generator=torch.Generator().manual_seed(2)).square().sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    torch.testing.assert_close(*gradients, atol=0, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_as_accurate_with_a_cache(dtype):
    model, x = build(refill_stride=2), sequences(32, M)
    expected = model({"x": x})[:, -1:]
    model, x = model.to(dtype), x.to(dtype)
    cache = model.create_cache()
    decoded = [model.extend({"x": part}, cache) for part in x.split([M - 3, 1, 1, 1], dim=1)][-1]
    assert decoded.dtype == dtype
    error, error_of_forward = ((each - expected).square().mean() for each in (decoded, model({"x": x})[:, -1:]))
    assert error <= 2 * error_of_forward


def test_caches_are_allocated_once():
    model, x = build(), sequences(1, LENGTH)
    cache = model.create_cache()
    model.extend({"x": x[:, :3]}, cache)
    buffers = [buffer for each in (cache.keys, *cache.latents) for buffer in each._buffers]
    addresses = [buffer.data_ptr() for buffer in buffers]
    for t in range(3, LENGTH):
        model.extend({"x": x[:, t : t + 1]}, cache)
    assert [b.data_ptr() for each in (cache.keys, *cache.latents) for b in each._buffers] == addresses
    assert sum(buffer.numel() for buffer in buffers) == 2 * M * C + 2 * N * (C + 15)


def test_grid_advances_in_strides():
    t = torch.arange(1, 200)
    for size, stride in ((7, 3), (8, 8), (5, 1)):
        start = grid(t, size, stride)
        assert start.tolist() == [stride * math.ceil(max(0, each - size) / stride) for each in t.tolist()]
        used = t - start
        assert used.max() == size
        assert used[t >= size].min() == size - stride + 1


def token_model(vocab_size, max_seq_len, num_latents, num_channels, num_layers, **values) -> PerceiverAR:
    """A model of tokens with tied output, as a plugin builds it."""

    class TokenInput(InputAdapter):
        is_causal = True

        def __init__(self):
            super().__init__(num_channels)
            self.embedding = nn.Embedding(vocab_size, num_channels)
            nn.init.normal_(self.embedding.weight, std=0.02)

        def forward(self, batch):
            return AdaptedInput(self.embedding(batch["input_ids"]))

    class TiedOutput(OutputAdapter):
        def __init__(self, embedding):
            super().__init__(InputQueryProvider(num_channels))
            self.embedding, self.bias = embedding, nn.Parameter(torch.zeros(vocab_size))

        def forward(self, decoded):
            return decoded @ self.embedding.weight.T + self.bias

    encoder = EncoderConfig(
        num_self_attention_layers_per_block=num_layers,
        cross_attention_widening_factor=4,
        self_attention_widening_factor=4,
    )
    sizes = {"num_latents": num_latents, "max_seq_len": max_seq_len, "num_latent_channels": num_channels}
    input_adapter = TokenInput()
    return PerceiverAR(
        PerceiverARConfig(encoder, DecoderConfig(), **sizes | values),
        input_adapter,
        TiedOutput(input_adapter.embedding),
    )


def test_parameters_of_a_published_model():
    """The small language model of the ``perceiver-io`` package: bytes, 4096 inputs, 512 latents."""
    with torch.device("meta"):
        model = token_model(262, 4096, 512, 512, 8, absolute_positions=True, output_norm=False)
    assert sum(parameter.numel() for parameter in model.parameters()) == 30_563_078


@pytest.mark.slow
def test_training_on_long_inputs_needs_no_array_of_all_scores(largest):
    m, n = 2**14, 2**9
    model = token_model(9, m, n, 16, 1)
    with largest:
        model({"input_ids": torch.randint(9, (1, m))}).square().sum().backward()
    assert largest.size <= m * n / 4


@pytest.mark.slow
def test_a_mirrored_copy_is_learned():
    """16 random symbols and their mirror image; the latents are the second half."""
    torch.manual_seed(0)
    model = token_model(65, 33, 16, 64, 1, absolute_positions=True, prefix_dropout=0.0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    accuracy = 0.0
    for _ in range(400):
        symbols = torch.randint(1, 65, (64, 16))
        ids = torch.cat([torch.zeros(64, 1, dtype=torch.long), symbols, symbols.flip(1)], dim=1)
        logits, labels = model({"input_ids": ids[:, :-1]}), ids[:, -16:]
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        accuracy = (logits.argmax(-1) == labels).float().mean().item()
        if accuracy > 0.99:
            return
    pytest.fail(f"{accuracy:.1%} of the symbols are copied")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_latents": M + 1}, "num_latents=17: must not exceed max_seq_len=16"),
        ({"refill_stride": N + 1}, "refill_stride=7: must not exceed num_latents=6"),
        ({"refill_stride": 0}, "refill_stride=0: must be at least 1"),
        ({"prefix_dropout": 1.0}, "prefix_dropout=1.0: must be at least 0 and less than 1"),
        ({"rotary_fraction": 1.5}, "rotary_fraction=1.5: must be at least 0 and at most 1"),
        ({"num_rotary_layers": -1}, "num_rotary_layers=-1: must be at least 0"),
        ({"activation": "elu"}, "activation='elu': must be one of gelu, gelu_tanh"),
        (
            {"encoder": {"num_self_attention_blocks": 2}},
            r"encoder.num_self_attention_blocks=2: has no effect in this architecture",
        ),
        ({"decoder": {"dropout": 0.1}}, r"decoder.dropout=0.1: has no effect in this architecture"),
    ],
)
def test_values_out_of_range_or_without_meaning_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        make_config(**values)


def test_adapters_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="num_latent_channels=10: must equal the input channels, 20"):
        PerceiverAR(make_config(num_latent_channels=10), ArrayInput(), LinearOutput())
    input_adapter = ArrayInput()
    input_adapter.is_causal = False
    with pytest.raises(ValueError, match="ArrayInput: does not embed each input by itself"):
        PerceiverAR(make_config(), input_adapter, LinearOutput())
    output_adapter = LinearOutput()
    output_adapter.query_provider = TrainableQueryProvider(5, C)
    with pytest.raises(ValueError, match="TrainableQueryProvider: output queries have no meaning in Perceiver AR"):
        PerceiverAR(make_config(), ArrayInput(), output_adapter)


def test_inputs_that_do_not_fit_are_refused():
    model, x = build(), sequences(1, M + 1)
    with pytest.raises(ValueError, match="input of length 17 is longer than max_seq_len=16"):
        model({"x": x})
    with pytest.raises(ValueError, match="num_outputs=18: must be 1 to 17"):
        model.extend({"x": x}, model.create_cache(), num_outputs=18)
    with pytest.raises(ValueError, match="padding follows inputs"):
        model.extend({"x": x, "pad_mask": torch.arange(M + 1)[None] > 9}, model.create_cache())
    cache = model.create_cache()
    model.extend({"x": x}, cache)
    with pytest.raises(ValueError, match="batch: must have the entries x, got x, pad_mask"):
        model.extend({"x": x, "pad_mask": torch.zeros(1, M + 1, dtype=torch.bool)}, cache)
