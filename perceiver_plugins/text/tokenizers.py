"""Tokenizers: loading by name, requirements of masked language models, serialization for checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PerceiverTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from perceiver_plugins.sdk.errors import one_line
from perceiver_plugins.sdk.hub import hub
from perceiver_registry.errors import UserError, surface_own_fault

PERCEIVER_TOKENIZER = "deepmind/language-perceiver"
"""UTF-8 bytes: 6 special tokens, then the 256 bytes. Without a vocabulary file, it needs no download."""

MAX_UNKNOWN = 0.5
"""Largest share of unknown tokens of a text that is not reported. With a tokenizer of the words of the training part,
at most 0.3 % of the texts in the part ``tune`` of the English sets of ``python -m benchmarks own-data`` have a larger
one. A text in an unknown script has 1."""

BYTES = "bytes"
"""Short name of the Perceiver tokenizer."""

_SPECIAL_TOKENS = ("pad_token", "bos_token", "eos_token", "mask_token", "cls_token", "sep_token", "unk_token")

CHOICES = f"name a folder with a saved tokenizer, a hub id, or {BYTES!r}, which needs no download"
"""Advice on the option ``tokenizer``, for messages."""


class TokenizerError(UserError):
    """A tokenizer that cannot be loaded, or lacks a required feature."""


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Load a tokenizer.

    Args:
        name: ``bytes`` or ``deepmind/language-perceiver`` (UTF-8 bytes, no download), a folder with a saved tokenizer,
            or the id of a tokenizer or model on the Hugging Face hub.

    Raises:
        TokenizerError: If the tokenizer does not exist or is damaged, or the hub cannot be reached.
    """
    if name in (BYTES, PERCEIVER_TOKENIZER):
        return PerceiverTokenizer()
    folder = Path(name).expanduser()
    if folder.is_dir():
        name = str(folder)
    elif folder.exists() or name.startswith((".", "/", "~")):
        raise TokenizerError(f"tokenizer: {name!r} is not a folder ({CHOICES})")
    try:
        with hub():
            return cast(PreTrainedTokenizerBase, AutoTokenizer.from_pretrained(name, trust_remote_code=False))
    # no network, no such repository, damaged or unrelated files: errors of the user
    except Exception as error:
        surface_own_fault(error)
        source = "folder" if folder.is_dir() else "the Hugging Face hub"
        raise TokenizerError(
            f"tokenizer: {name!r} could not be loaded from {source}: {one_line(error)} ({CHOICES})"
        ) from error


def byte_offset(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the id of byte 0 if the tokens are the UTF-8 bytes in order, otherwise None.

    It is determined by encoding a text, so that saved copies of byte tokenizers are recognised as well.
    """
    if tokenizer.is_fast:
        return None
    probe = "aé€😀\n"
    ids = tokenizer(probe, add_special_tokens=False)["input_ids"]
    offset = ids[0] - ord("a") if ids else -1
    return offset if offset >= 0 and ids == [offset + byte for byte in probe.encode()] else None


def unknown_tokens(tokenizer: PreTrainedTokenizerBase, input_ids: np.ndarray) -> np.ndarray:
    """Return a mask (n,), True at the tokens (n,) of words or characters that the tokenizer does not know."""
    # Tokenizers of bytes know all texts, although they may name an unknown token.
    unknown = None if byte_offset(tokenizer) is not None else tokenizer.unk_token_id
    return np.zeros(len(input_ids), dtype=bool) if unknown is None else np.asarray(input_ids) == unknown


def mask_token_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the id of the mask token.

    Raises:
        TokenizerError: If the tokenizer has no mask token.
    """
    if tokenizer.mask_token_id is None:
        raise TokenizerError(
            f"tokenizer: {tokenizer.name_or_path or type(tokenizer).__name__!r} has no mask token, which masked "
            f"language modelling needs (choose another tokenizer, such as {BYTES!r})"
        )
    return int(tokenizer.mask_token_id)


def document_end_id(tokenizer: PreTrainedTokenizerBase, advice: str) -> int:
    """Return the id of the token that ends a document: EOS, or SEP if the tokenizer has no EOS.

    Args:
        tokenizer: The tokenizer.
        advice: Advice in the message of the error.

    Raises:
        TokenizerError: If the tokenizer has neither.
    """
    end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
    if end is None:
        raise TokenizerError(
            f"tokenizer: {tokenizer.name_or_path or type(tokenizer).__name__!r} has neither an EOS nor a SEP token "
            f"to end documents with ({advice})"
        )
    return int(end)


def check_words(tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that the tokenizer can segment text into words.

    Raises:
        TokenizerError: If the tokenizer has no fast version and is not a byte tokenizer, or does not split text into
            words.
    """
    if byte_offset(tokenizer) is not None:
        return
    name = tokenizer.name_or_path or type(tokenizer).__name__
    if not tokenizer.is_fast:
        raise TokenizerError(
            f"tokenizer: {name!r} has no fast version, so word boundaries are unknown (pass mask_words=false to mask "
            "tokens)"
        )
    words = set(tokenizer("one two", add_special_tokens=False).word_ids()) - {None}
    if len(words) < 2:
        raise TokenizerError(
            f"tokenizer: {name!r} does not split text into words (pass mask_words=false to mask tokens)"
        )


def serialize_tokenizer(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Convert a tokenizer to plain strings, numbers and dicts for a checkpoint.

    Raises:
        TokenizerError: If the tokenizer has no fast version and is not the Perceiver's.
    """
    common: dict[str, Any] = {
        "name": str(tokenizer.name_or_path or ""),
        "padding_side": tokenizer.padding_side,
        # transformers represents "no limit" by 1e30, which does not fit into 64 bits
        "model_max_length": min(int(tokenizer.model_max_length), 2**31 - 1),
        "special_tokens": {
            kind: str(token) for kind in _SPECIAL_TOKENS if (token := getattr(tokenizer, kind, None)) is not None
        },
    }
    if isinstance(tokenizer, PerceiverTokenizer) and len(tokenizer) == 262:
        return {"kind": "perceiver", **common}
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not tokenizer.is_fast or backend is None:
        raise TokenizerError(
            f"tokenizer: {common['name'] or type(tokenizer).__name__!r} has no fast version and cannot be stored in a "
            "checkpoint (choose a tokenizer with a fast version)"
        )
    return {"kind": "fast", "json": backend.to_str(), **common}


def deserialize_tokenizer(state: dict[str, Any]) -> PreTrainedTokenizerBase:
    """Restore a tokenizer from the output of :func:`serialize_tokenizer`.

    Raises:
        TokenizerError: If the kind of tokenizer is unknown.
    """
    arguments = {
        **state["special_tokens"],
        "padding_side": state["padding_side"],
        "model_max_length": state["model_max_length"],
    }
    if state["kind"] == "perceiver":
        arguments.pop("unk_token", None)
        tokenizer: PreTrainedTokenizerBase = PerceiverTokenizer(**arguments)
    elif state["kind"] == "fast":
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(state["json"]), **arguments)
    else:
        raise TokenizerError(f"unknown kind of tokenizer {state['kind']!r} (known: 'fast', 'perceiver')")
    tokenizer.name_or_path = state["name"]
    return tokenizer
