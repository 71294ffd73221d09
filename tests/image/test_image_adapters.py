"""Image input adapters against Hugging Face's preprocessors, timm's models and independent formulas."""

from __future__ import annotations

import copy
import dataclasses
import io
import pickle
from itertools import product

import pytest
import timm
import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.models.perceiver.modeling_perceiver import (
    PerceiverFourierPositionEncoding,
    PerceiverImagePreprocessor,
)

from perceiver_core import DecoderConfig, OutputAdapter, PerceiverConfig, PerceiverIO, TrainableQueryProvider
from perceiver_plugins.image import (
    ImageConvEncoderConfig,
    ImageConvInputAdapter,
    ImageInputAdapter,
    ImageLearnedEncoderConfig,
    ImageLearnedInputAdapter,
    ImagePatchesEncoderConfig,
    ImagePatchesInputAdapter,
    ImagePixelsEncoderConfig,
    ImagePixelsInputAdapter,
    ImageStagesEncoderConfig,
    ImageStagesInputAdapter,
    ImageTimmEncoderConfig,
    ImageTimmInputAdapter,
)
from perceiver_registry import UnknownNameError, UserError

ADAPTERS = {
    "pixels": (ImagePixelsInputAdapter, ImagePixelsEncoderConfig(num_channels=2, num_frequency_bands=3)),
    "learned": (
        ImageLearnedInputAdapter,
        ImageLearnedEncoderConfig(num_channels=2, num_conv_channels=7, image_size=(9, 6), num_position_channels=5),
    ),
    "conv": (ImageConvInputAdapter, ImageConvEncoderConfig(num_channels=2, num_conv_channels=7, num_frequency_bands=3)),
    "stages": (
        ImageStagesInputAdapter,
        ImageStagesEncoderConfig(num_channels=2, num_conv_channels=12, num_stages=2, num_residual_layers_per_stage=2),
    ),
    "patches": (
        ImagePatchesInputAdapter,
        ImagePatchesEncoderConfig(num_channels=2, patch_size=4, num_patch_channels=7, num_frequency_bands=3),
    ),
    "timm": (
        ImageTimmInputAdapter,
        ImageTimmEncoderConfig(num_channels=2, timm_model="test_efficientnet", num_frequency_bands=3),
    ),
}
SIZES = [(56, 56), (20, 28), (45, 33), (17, 64)]


@pytest.fixture(params=list(ADAPTERS))
def adapter(request, randomise_all) -> ImageInputAdapter:
    """Adapter of each kind for images of two channels, with random weights and running statistics."""
    adapter_type, config = ADAPTERS[request.param]
    return randomise_all(adapter_type.from_config(config)).eval()


@pytest.fixture
def randomise_all(randomise):
    """Factory of modules with random parameters and random running statistics of batch norms."""

    def randomise_all(module: nn.Module) -> nn.Module:
        for norm in randomise(module).modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.running_mean.normal_()
                norm.running_var.uniform_(0.5, 2.0)
        return module

    return randomise_all


def adapt(adapter: ImageInputAdapter, images: Tensor) -> Tensor:
    """Compute the input array of images, without padding."""
    x, pad_mask, _ = adapter({"pixel_values": images})
    assert pad_mask is None
    return x


def statistics(module: nn.Module) -> dict[str, Tensor]:
    """Copy the buffers of a module, such as running statistics of batch norms."""
    return {name: buffer.clone() for name, buffer in module.named_buffers()}


def fourier_positions(size: tuple[int, int], num_bands: int, max_resolution: tuple[int, int]) -> Tensor:
    """Compute Hugging Face's Fourier position encodings of a grid."""
    encoding = PerceiverFourierPositionEncoding(num_bands, max_resolution)
    return encoding(list(size), 1, torch.device("cpu"), torch.float32)[0]


# Against Hugging Face's preprocessors


@pytest.fixture(params=["Fourier", "Learned", "ConvProcessing"])
def pair(request, randomise_all) -> tuple[PerceiverImagePreprocessor, ImageInputAdapter]:
    """Preprocessor of one of Hugging Face's models, and the equivalent adapter."""
    sizes = {"num_latents": 3, "d_latents": 8, "num_self_attends_per_block": 1, "num_self_attention_heads": 1}
    config = transformers.PerceiverConfig(image_size=14, num_cross_attention_heads=1, **sizes)
    model = getattr(transformers, f"PerceiverForImageClassification{request.param}")(config)
    theirs = randomise_all(model.perceiver.input_preprocessor).eval()
    if request.param == "Fourier":
        return theirs, ImagePixelsInputAdapter(ImagePixelsEncoderConfig())
    if request.param == "Learned":
        learned = ImageLearnedInputAdapter(ImageLearnedEncoderConfig(image_size=(14, 14)))
        learned.conv.load_state_dict(theirs.convnet_1x1.state_dict())
        learned.positions_projection.load_state_dict(theirs.positions_projection.state_dict())
        learned.position_embeddings.data.copy_(theirs.position_embeddings.position_embeddings)
        return theirs, learned.eval()
    conv = ImageConvInputAdapter(ImageConvEncoderConfig())
    conv.stem.conv.load_state_dict(theirs.convnet.conv.state_dict())
    conv.stem.norm.load_state_dict(theirs.convnet.batchnorm.state_dict())
    return theirs, conv.eval()


@torch.no_grad()
@pytest.mark.parametrize("size", [(14, 14), (20, 28), (45, 33), (17, 64), (5, 6)])
def test_input_equals_hugging_face(pair, size, request):
    theirs, ours = pair
    if isinstance(ours, ImageLearnedInputAdapter) and size != (14, 14):
        request.getfixturevalue("needs_interpolation")
    images = torch.randn(3, 3, *size)
    expected, _, _ = theirs(images, interpolate_pos_encoding=True)
    actual = adapt(ours, images)
    assert actual.shape[-1] == ours.num_input_channels == theirs.num_channels
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())


@torch.no_grad()
def test_patches_equal_hugging_face(randomise):
    """Hugging Face's linear layer reads a patch as (rows, columns, channels)."""
    theirs = randomise(
        PerceiverImagePreprocessor(
            transformers.PerceiverConfig(),
            prep_type="patches",
            spatial_downsample=4,
            in_channels=3,
            out_channels=10,
            conv_after_patching=True,
            conv_after_patching_in_channels=4 * 4 * 3,
            fourier_position_encoding_kwargs={"num_bands": 5, "max_resolution": (6, 9)},
        )
    )
    config = ImagePatchesEncoderConfig(
        patch_size=4, num_patch_channels=10, num_frequency_bands=5, max_resolution=(6, 9)
    )
    ours = ImagePatchesInputAdapter(config)
    ours.conv.weight.copy_(theirs.conv_after_patches.weight.unflatten(1, (4, 4, 3)).permute(0, 3, 1, 2))
    ours.conv.bias.copy_(theirs.conv_after_patches.bias)
    images = torch.randn(2, 3, 20, 32)
    # Hugging Face expects a video: a sequence of one image.
    expected, _, _ = theirs(images[:, None])
    torch.testing.assert_close(adapt(ours, images), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_patches_at_the_border_are_zero_padded(randomise):
    adapter = randomise(ImagePatchesInputAdapter(ADAPTERS["patches"][1]))
    images = torch.randn(2, 2, 9, 14)
    filled = torch.zeros(2, 2, 12, 16)
    filled[:, :, :9, :14] = images
    torch.testing.assert_close(adapt(adapter, images), adapt(adapter, filled), rtol=0, atol=0)
    corner = torch.einsum("bchw,fchw->bf", filled[:, :, 8:, 12:], adapter.conv.weight) + adapter.conv.bias
    torch.testing.assert_close(adapt(adapter, images)[:, -1, :7], corner)


@torch.no_grad()
def test_learned_positions_of_an_oblong_grid_are_interpolated(randomise):
    adapter = randomise(ImageLearnedInputAdapter(ADAPTERS["learned"][1]))
    actual = adapt(adapter, torch.randn(2, 2, 9, 6))[0, :, 7:]
    expected = adapter.positions_projection(adapter.position_embeddings)
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)
    # Interpolation is linear, and so is the projection but for its bias.
    grid = (expected - adapter.positions_projection.bias).reshape(9, 6, 5).permute(2, 0, 1)[None]
    for size in ((12, 5), (6, 9)):
        other = adapt(adapter, torch.randn(1, 2, *size))[0, :, 7:]
        resized = nn.functional.interpolate(grid, size, mode="bicubic")[0].flatten(1).T
        torch.testing.assert_close(other, resized + adapter.positions_projection.bias, rtol=1e-5, atol=1e-5)


# Stages of convolutions


@torch.no_grad()
@pytest.mark.parametrize("size", [(9, 14), (1, 1), (16, 5)])
def test_stages_equal_the_formula(size, randomise_all):
    """The convolutions are loops over the 3x3 offsets of zero-padded images."""
    adapter = randomise_all(ImageStagesInputAdapter(ADAPTERS["stages"][1])).eval()
    weights = [value for name, value in adapter.state_dict().items() if "num_batches" not in name]
    images = torch.randn(2, 2, *size)

    def layer(x: Tensor) -> Tensor:
        kernel, scale, shift, mean, variance = (weights.pop(0) for _ in range(5))
        height, width = x.shape[2:]
        padded = nn.functional.pad(x, (1, 1, 1, 1))
        convolved = sum(
            torch.einsum("bchw,fc->bfhw", padded[:, :, row : row + height, column : column + width], weight)
            for (row, column), weight in zip(product(range(3), range(3)), kernel.flatten(2).unbind(2), strict=True)
        )
        normed = (convolved - mean[:, None, None]) / (variance + 1e-5).sqrt()[:, None, None]
        return (normed * scale[:, None, None] + shift[:, None, None]).clamp(min=0)

    def largest_of_four(x: Tensor) -> Tensor:
        x = nn.functional.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2), value=float("-inf"))
        return torch.stack([x[:, :, row::2, column::2] for row in (0, 1) for column in (0, 1)]).amax(0)

    x = images
    for _ in range(2):
        x = largest_of_four(layer(x))
        for _ in range(2):
            x = x + layer(x)
    assert not weights
    assert x.shape[2:] == adapter.grid(*size)
    torch.testing.assert_close(adapt(adapter, images)[..., :12], x.flatten(2).transpose(1, 2), rtol=1e-4, atol=1e-4)


def test_single_position_of_a_last_batch_is_trained(randomise_all):
    """A batch of one image of one position has no variance, so that the running one is used."""
    adapter = randomise_all(ImageStagesInputAdapter(ADAPTERS["stages"][1]))
    image = torch.randn(1, 2, 1, 1)
    trained = adapt(adapter.train(), image)
    torch.testing.assert_close(trained, adapt(adapter.eval(), image))
    trained.sum().backward()
    assert all(parameter.grad is not None for parameter in adapter.parameters())


def test_channels_that_cannot_be_halved_are_rejected():
    with pytest.raises(ValueError, match=r"num_conv_channels=18: must be divisible by 4 for num_stages=3"):
        ImageStagesEncoderConfig(num_conv_channels=18)
    assert ImageStagesEncoderConfig(num_conv_channels=18, num_stages=2).num_residual_layers_per_stage == 1
    with pytest.raises(ValueError, match=r"num_residual_layers_per_stage=-1: must be at least 0"):
        ImageStagesEncoderConfig(num_residual_layers_per_stage=-1)


# timm


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "size", "grid"),
    [
        ("test_efficientnet", (45, 70), (2, 3)),
        ("test_mambaout", (65, 97), (3, 4)),  # its maps have their channels last
        ("test_vit", (32, 48), (2, 3)),
    ],
)
def test_input_is_timm_feature_map_with_positions(name, size, grid, randomise_all):
    config = ImageTimmEncoderConfig(
        timm_model=name, num_channels=2, image_size=size, num_frequency_bands=4, max_resolution=(7, 9)
    )
    adapter = randomise_all(ImageTimmInputAdapter(config)).eval()
    images = torch.randn(2, 2, *size)
    features = adapter.backbone.model(images)[0]
    if name == "test_mambaout":
        assert features.shape[1:3] == grid
    else:
        assert features.shape[2:] == grid
        features = features.permute(0, 2, 3, 1)
    positions = fourier_positions(grid, 4, (7, 9))
    expected = torch.cat([features.flatten(1, 2), positions.expand(2, -1, -1)], dim=-1)
    torch.testing.assert_close(adapt(adapter, images), expected, rtol=0, atol=1e-6)
    assert features.std() > 1e-3


@torch.no_grad()
def test_features_equal_the_full_timm_model():
    whole = timm.create_model("test_vit", in_chans=1, img_size=(32, 48)).eval()
    config = ImageTimmEncoderConfig(timm_model="test_vit", num_channels=1, image_size=(32, 48))
    adapter = ImageTimmInputAdapter(config).eval()
    weights = {f"model.{key}": value for key, value in whole.state_dict().items()}
    model = adapter.backbone.model
    model.load_state_dict({key: weights[key] for key in model.state_dict()})
    images = torch.randn(2, 1, 32, 48)
    tokens = whole.forward_features(images)[:, whole.num_prefix_tokens :]
    features = adapt(adapter, images)[..., : tokens.shape[-1]]
    assert tokens.shape[1] == 2 * 3
    # The last norm may or may not be a part of a feature map.
    normed = whole.norm(features)
    torch.testing.assert_close(normed, tokens, rtol=1e-4, atol=1e-5)


def test_out_index_selects_the_feature_map():
    finer = ImageTimmInputAdapter(dataclasses.replace(ADAPTERS["timm"][1], out_index=2))
    coarser = ImageTimmInputAdapter(ADAPTERS["timm"][1])
    assert finer.grid(64, 96) == (8, 12)
    assert coarser.grid(64, 96) == (2, 3)
    assert adapt(finer, torch.randn(1, 2, 64, 96)).shape == (1, 96, finer.num_input_channels)


@pytest.mark.parametrize("name", ["test_efficientnet", "test_vit"])
def test_frozen_backbone_stays_in_evaluation_mode(name):
    config = dataclasses.replace(ADAPTERS["timm"][1], timm_model=name, freeze_backbone=True, image_size=(32, 32))
    adapter = ImageTimmInputAdapter(config)
    images, before = torch.randn(4, 2, 32, 32), statistics(adapter)
    for training in (True, False, True):
        adapter.train(training)
        assert not any(module.training for module in adapter.backbone.modules())
        adapt(adapter, images)
    assert not any(parameter.requires_grad for parameter in adapter.parameters())
    torch.testing.assert_close(statistics(adapter), before, rtol=0, atol=0)


def test_backbone_is_trained():
    adapter = ImageTimmInputAdapter(ADAPTERS["timm"][1])
    before = statistics(adapter)
    adapt(adapter, torch.randn(4, 2, 32, 32)).square().sum().backward()
    assert any(not torch.equal(value, before[name]) for name, value in statistics(adapter).items())
    assert all(parameter.grad is not None for parameter in adapter.parameters())


def test_unknown_timm_model_suggests_similar_names():
    with pytest.raises(UnknownNameError, match=r"unknown timm_model 'resnet19'; did you mean .*'resnet18'"):
        ImageTimmInputAdapter(ImageTimmEncoderConfig(timm_model="resnet19"))
    with pytest.raises(UnknownNameError, match=r"unknown timm_model '#'; known: timm.list_models\(\)"):
        ImageTimmInputAdapter(ImageTimmEncoderConfig(timm_model="#"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"timm_model": "test_efficientnet.tag"}, "Invalid pretrained tag"),
        ({"out_index": 9}, "out_index=9"),
        ({"pretrained": True, "timm_model": "test_mambaout_without_weights"}, "No pretrained weights exist"),
    ],
)
def test_invalid_timm_options_are_reported(values, message, monkeypatch):
    entry = timm.model_entrypoint("test_mambaout")
    monkeypatch.setitem(timm.models._registry._model_entrypoints, "test_mambaout_without_weights", entry)
    with pytest.raises(UserError, match="cannot be created: ") as error:
        ImageTimmInputAdapter(dataclasses.replace(ADAPTERS["timm"][1], **values))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_pretrained_weights_are_loaded(monkeypatch, tmp_path, randomise_all):
    """A local file replaces the download. The weights of one channel are the sum of those of three."""
    name, weights = "test_efficientnet.r160_in1k", tmp_path / "weights.safetensors"
    published = randomise_all(timm.create_model(name))
    save_file(published.state_dict(), weights)
    local = dataclasses.replace(timm.get_pretrained_cfg(name), file=str(weights))
    monkeypatch.setitem(timm.models._registry._model_pretrained_cfgs, name, local)
    config = ImageTimmEncoderConfig(timm_model=name, pretrained=True, num_channels=1)
    loaded = ImageTimmInputAdapter(config).backbone.model
    torch.testing.assert_close(loaded.conv_stem.weight, published.conv_stem.weight.sum(1, keepdim=True))
    torch.testing.assert_close(loaded.blocks[1].state_dict(), published.blocks[1].state_dict())


# All adapters


@torch.no_grad()
@pytest.mark.parametrize("size", SIZES)
def test_positions_follow_the_grid_row_by_row(adapter, size):
    x = adapt(adapter, torch.randn(1, 2, *size))
    height, width = adapter.grid(*size)
    assert x.shape == (1, height * width, adapter.num_input_channels)
    if not isinstance(adapter, ImageLearnedInputAdapter):
        bands = adapter.fourier_positions.num_bands
        expected = fourier_positions((height, width), bands, adapter.fourier_positions.max_resolution)
        torch.testing.assert_close(x[0, :, -expected.shape[1] :], expected, rtol=0, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("name", ["pixels", "learned", "conv", "patches"])
def test_changed_pixels_affect_their_own_position_most(name, randomise_all):
    """The largest change is at the input position of the changed pixels."""
    adapter_type, config = ADAPTERS[name]
    adapter = randomise_all(adapter_type.from_config(config)).eval()
    images = torch.zeros(1, 2, 64, 96)
    before = adapt(adapter, images)
    images[:, :, 40:44, 20:24] = 5.0
    height, width = adapter.grid(64, 96)
    changes = (adapt(adapter, images) - before).norm(dim=-1).reshape(height, width)
    row, column = divmod(int(changes.argmax()), width)
    assert (row + 0.5) / height * 64 == pytest.approx(42, abs=4)
    assert (column + 0.5) / width * 96 == pytest.approx(22, abs=4)


def test_state_dict_has_no_fourier_positions(adapter):
    adapt(adapter, torch.randn(1, 2, 40, 40))
    expected = {name for name, _ in (*adapter.named_parameters(), *adapter.named_buffers())}
    assert set(adapter.state_dict()) == expected
    assert not any("fourier" in name for name in expected)
    stored = io.BytesIO()
    torch.save(adapter.state_dict(), stored)
    weights = sum(value.nbytes for value in adapter.state_dict().values())
    assert stored.getbuffer().nbytes < weights + 1500 * (1 + len(expected))


@torch.no_grad()
def test_adapters_can_be_copied_and_pickled(adapter):
    images = torch.randn(2, 2, 40, 33)
    expected = adapt(adapter, images)
    stored = io.BytesIO()
    torch.save(adapter, stored)
    stored.seek(0)
    for other in (
        copy.deepcopy(adapter),
        pickle.loads(pickle.dumps(adapter)),
        torch.load(stored, weights_only=False),
    ):
        torch.testing.assert_close(adapt(other, images), expected, rtol=0, atol=0)


@torch.no_grad()
def test_bfloat16_is_preserved(adapter):
    x = adapt(adapter.bfloat16(), torch.randn(1, 2, 40, 40, dtype=torch.bfloat16))
    assert x.dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        assert adapt(adapter.float(), torch.randn(1, 2, 40, 40)).isfinite().all()


def test_grid_has_no_side_effects(adapter):
    adapter.train()
    list(adapter.modules())[-1].eval()  # as a user may
    before, modes = statistics(adapter), [module.training for module in adapter.modules()]
    assert adapter.grid(33, 47) == adapter.grid(33, 47)
    assert [module.training for module in adapter.modules()] == modes
    torch.testing.assert_close(statistics(adapter), before, rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(2, 30, 30), (1, 3, 30, 30), (1, 30, 30, 2), (1, 1, 2, 30, 30), (30,)])
def test_other_shapes_are_rejected(adapter, shape):
    with pytest.raises(ValueError, match=r"pixel_values of shape .*: must be .* num_channels=2 channels$"):
        adapt(adapter, torch.randn(shape))


def test_integer_images_are_rejected(adapter):
    with pytest.raises(ValueError, match=r"pixel_values of type torch\.uint8: must be floating point"):
        adapt(adapter, torch.zeros(1, 2, 30, 30, dtype=torch.uint8))


def test_images_too_small_for_the_conv_stem_are_rejected():
    adapter = ImageConvInputAdapter(ADAPTERS["conv"][1])
    assert adapt(adapter, torch.randn(2, 2, 5, 7)).shape[1] == 1
    for use in (lambda: adapt(adapter, torch.randn(1, 2, 4, 30)), lambda: adapter.grid(4, 30)):
        with pytest.raises(ValueError, match=r"images of 4x30 pixels are too small \(at least 5x5"):
            use()


def test_sizes_that_a_backbone_rejects_are_reported():
    config = dataclasses.replace(ADAPTERS["timm"][1], timm_model="test_vit3", image_size=[32, 48])
    adapter = ImageTimmInputAdapter(config)
    assert adapter.grid(32, 48) == (2, 3)
    for use in (lambda: adapt(adapter, torch.randn(1, 2, 48, 32)), lambda: adapter.grid(48, 32)):
        with pytest.raises(ValueError, match=r"timm_model='test_vit3': cannot process images of 48x32 .* image_size"):
            use()


class Data:
    """Stand-in for a data module with the given attributes."""

    def __init__(self, **values):
        vars(self).update(values)


def test_data_with_other_channels_is_rejected(adapter):
    adapter.check_data(Data())
    adapter.check_data(Data(num_channels=2, image_size=(33, 20)))
    with pytest.raises(ValueError, match=r"^the data's num_channels=3 does not fit the model's num_channels=2$"):
        adapter.check_data(Data(num_channels=3, image_size=(33, 20)))


def test_data_of_unsupported_size_is_rejected():
    adapter = ImageConvInputAdapter(ADAPTERS["conv"][1])
    with pytest.raises(ValueError, match="images of 30x4 pixels are too small"):
        adapter.check_data(Data(image_size=(30, 4)))


@pytest.mark.parametrize(
    ("name", "changes", "size"),
    [
        ("pixels", {"max_resolution": (9, 7)}, (9, 7)),
        ("learned", {"image_size": (9, 7)}, (9, 7)),
        ("conv", {"max_resolution": (9, 7)}, (36, 28)),
        ("patches", {"max_resolution": (9, 7), "patch_size": 3}, (27, 21)),
        ("timm", {"max_resolution": (2, 1)}, (64, 32)),
        ("timm", {"timm_model": "test_vit3", "image_size": (32, 48)}, (32, 48)),
        ("timm", {"timm_model": "test_vit3"}, (160, 160)),
    ],
)
def test_example_batch_has_the_default_size(name, changes, size):
    adapter_type, config = ADAPTERS[name]
    adapter = adapter_type.from_config(dataclasses.replace(config, **changes))
    first, again, other = (adapter.example_batch(2, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert first["pixel_values"].shape == (2, 2, *size)
    assert torch.equal(first["pixel_values"], again["pixel_values"])
    assert not torch.equal(first["pixel_values"], other["pixel_values"])
    assert adapter(first).x.isfinite().all()


# In a model


class Output(OutputAdapter):
    """Output adapter that returns the decoder's output for one query."""

    def __init__(self):
        super().__init__(TrainableQueryProvider(1, 6))

    def forward(self, decoded: Tensor) -> Tensor:
        return decoded


def model_of(name: str, freeze: bool = False) -> PerceiverIO:
    adapter_type, config = ADAPTERS[name]
    sizes = {"num_cross_attention_heads": 1, "num_self_attention_heads": 2, "num_self_attention_layers_per_block": 1}
    config = dataclasses.replace(config, freeze=freeze, **sizes)
    whole = PerceiverConfig(config, DecoderConfig(1), num_latents=3, num_latent_channels=8)
    return PerceiverIO(whole, adapter_type.from_config(config), Output())


@pytest.mark.parametrize("name", list(ADAPTERS))
def test_all_weights_of_an_adapter_are_trained(name):
    model = model_of(name)
    model({"pixel_values": torch.randn(3, 2, 40, 33)}).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.input_adapter.parameters())


@pytest.mark.parametrize("name", ["conv", "timm"])
def test_statistics_of_a_frozen_encoder_do_not_change(name):
    images = {"pixel_values": torch.randn(4, 2, 40, 33)}
    for freeze in (False, True):
        model = model_of(name, freeze)
        before = statistics(model)
        model(images)  # a fresh module is in training mode
        model.train()
        in_training = model(images)
        changed = any(not torch.equal(value, before[key]) for key, value in statistics(model).items())
        assert changed is not freeze
        # Evaluation uses these statistics.
        assert torch.allclose(in_training, model.eval()(images), rtol=0, atol=1e-7) is freeze


def test_freezing_and_unfreezing_later_affects_statistics():
    adapter = ImageConvInputAdapter(ADAPTERS["conv"][1])
    images = torch.randn(4, 2, 40, 33)
    adapter.requires_grad_(False)
    before = statistics(adapter)
    adapt(adapter, images)
    torch.testing.assert_close(statistics(adapter), before, rtol=0, atol=0)
    adapter.requires_grad_(True).train()
    adapt(adapter, images)
    assert not torch.equal(adapter.stem.norm.running_mean, before["stem.norm.running_mean"])


def test_module_without_weights_is_not_frozen():
    adapter = ImagePixelsInputAdapter(ADAPTERS["pixels"][1])
    adapter.dropout = nn.Dropout()
    adapter.train()
    adapt(adapter, torch.randn(1, 2, 9, 9))
    assert adapter.dropout.training


# Initialisation and configuration


def test_init_scale_is_the_standard_deviation_of_weights():
    learned = ImageLearnedInputAdapter(ImageLearnedEncoderConfig(init_scale=0.1, image_size=(30, 20)))
    patches = ImagePatchesInputAdapter(ImagePatchesEncoderConfig(init_scale=0.1))
    weights = [learned.conv, learned.positions_projection, patches.conv]
    for weight in (learned.position_embeddings, *(module.weight for module in weights)):
        assert weight.std().item() == pytest.approx(0.1, rel=0.1)
    assert all(module.bias.eq(0).all() for module in weights)


@pytest.mark.parametrize(
    "config_type", [ImagePixelsEncoderConfig, ImageConvEncoderConfig, ImagePatchesEncoderConfig, ImageTimmEncoderConfig]
)
def test_size_may_be_a_list(config_type):
    assert config_type(max_resolution=[3, 4]).max_resolution == (3, 4)
    assert config_type(max_resolution=[3, 4]) == config_type(max_resolution=(3, 4))


@pytest.mark.parametrize("value", [[3], [3, 4, 5], 3, "34", [3.0, 4], [0, 4], None])
def test_invalid_size_is_rejected(value):
    with pytest.raises(ValueError, match=r"ImageLearnedEncoderConfig.image_size=.*: must be a height and a width"):
        ImageLearnedEncoderConfig(image_size=value)


@pytest.mark.parametrize(
    ("config_type", "field"),
    [
        (ImagePixelsEncoderConfig, "num_channels"),
        (ImagePixelsEncoderConfig, "num_frequency_bands"),
        (ImageLearnedEncoderConfig, "num_conv_channels"),
        (ImageLearnedEncoderConfig, "num_position_channels"),
        (ImageConvEncoderConfig, "num_conv_channels"),
        (ImageStagesEncoderConfig, "num_conv_channels"),
        (ImageStagesEncoderConfig, "num_stages"),
        (ImagePatchesEncoderConfig, "patch_size"),
        (ImagePatchesEncoderConfig, "num_patch_channels"),
        (ImageTimmEncoderConfig, "num_channels"),
    ],
)
def test_sizes_below_one_are_rejected(config_type, field):
    with pytest.raises(ValueError, match=rf"{config_type.__name__}\.{field}=0: must be at least 1"):
        config_type(**{field: 0})
