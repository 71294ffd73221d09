"""Fast tokenizers of ``transformers``, equivalent to the tokenization of a checkpoint's data module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerBase
from transformers.convert_slow_tokenizer import bytes_to_unicode

from perceiver_plugins.huggingface.zoo_tokenizer import ZooTokenizer
from perceiver_plugins.text.data.causal import CausalEncoder
from perceiver_plugins.text.data.encoding import DocumentEncoder
from perceiver_plugins.text.tokenizers import byte_offset, deserialize_tokenizer


def create_tokenizer(data: Mapping[str, Any], max_length: int, masks: bool, prompts: bool = False) -> ZooTokenizer:
    """Create the tokenizer of a checkpoint, which encodes texts as in training.

    Args:
        data: the checkpoint's description of its data.
        max_length: the model's maximum sequence length.
        masks: texts can contain mask tokens. If false, a byte tokenizer treats special tokens in texts as plain text,
            and the end-of-sequence token is appended if it was in training (``add_eos_token``).
        prompts: texts are prompts: they begin as documents do, have no end, and are padded on the left.
    """
    original = deserialize_tokenizer(data["tokenizer"])
    end_token = bool(data.get("add_eos_token", False)) and not masks
    if prompts:
        prefix_ids, suffix_ids = CausalEncoder(original).prefix if data.get("add_bos_token", True) else [], []
    else:
        encoder = DocumentEncoder(original, False, bool(data.get("add_special_tokens", False)), end_token)
        prefix_ids, suffix_ids = encoder.prefix, encoder.suffix
    is_byte_tokenizer = byte_offset(original) is not None
    backend = _byte_tokenizer(original) if is_byte_tokenizer else Tokenizer.from_str(data["tokenizer"]["json"])
    prefix, suffix = (list(map(backend.id_to_token, ids)) for ids in (prefix_ids, suffix_ids))
    backend.post_processor = TemplateProcessing(
        single=[*prefix, "$A", *suffix],
        special_tokens=list(dict(zip([*prefix, *suffix], [*prefix_ids, *suffix_ids], strict=True)).items()),
    )
    known = {*backend.get_vocab(with_added_tokens=True)}
    special = {kind: token for kind, token in data["tokenizer"]["special_tokens"].items() if token in known}
    if "pad_token" not in special:  # needed for batches; the model ignores padding
        others = [special[kind] for kind in ("eos_token", "sep_token", "cls_token", "unk_token") if kind in special]
        special |= {"pad_token": others[0]} if others else {}
    return ZooTokenizer(
        tokenizer_object=backend,
        **special,
        padding_side="left" if prompts else data.get("padding_side", "right"),
        truncation_side=data.get("truncation_side", "right"),
        model_max_length=max_length,
        split_special_tokens=is_byte_tokenizer and not masks,
        clean_up_tokenization_spaces=False,
    )


def _byte_tokenizer(original: PreTrainedTokenizerBase) -> Tokenizer:
    """Create a fast tokenizer with the tokens of a slow byte tokenizer."""
    offset = byte_offset(original)
    assert offset is not None
    special = {str(original.convert_ids_to_tokens(number)): number for number in sorted(original.all_special_ids)}
    bytes_ = {char: offset + byte for byte, char in bytes_to_unicode().items()}
    tokenizer = Tokenizer(BPE(vocab={**special, **bytes_}, merges=[]))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = ByteLevelDecoder()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return tokenizer
