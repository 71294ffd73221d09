"""Tokenizers: loading them by name, what the masked language model asks of them, and storing them in a
checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PerceiverTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from perceiver_plugins.sdk.errors import one_line
from perceiver_plugins.sdk.hub import hub
from perceiver_registry.errors import UserError, surface_own_fault

PERCEIVER_TOKENIZER = "deepmind/language-perceiver"
"""UTF-8 bytes: 6 special tokens, then the 256 bytes. It has no vocabulary file, so that nothing is downloaded
for it."""

_SPECIAL_TOKENS = ("pad_token", "bos_token", "eos_token", "mask_token", "cls_token", "sep_token", "unk_token")


class TokenizerError(UserError):
    """A tokenizer that cannot be loaded, or that cannot do what it is asked for."""


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Load a tokenizer.

    Args:
        name: ``deepmind/language-perceiver`` (UTF-8 bytes, no download), a folder with a saved tokenizer, or
            the id of a tokenizer or model on the Hugging Face hub.

    Raises:
        TokenizerError: If there is none of that name, or the hub cannot be reached.
    """
    if name == PERCEIVER_TOKENIZER:
        return PerceiverTokenizer()
    folder = Path(name).expanduser()
    if folder.is_dir():
        name = str(folder)
    elif folder.exists() or name.startswith((".", "/", "~")):
        raise TokenizerError(f"tokenizer {name!r} is not a folder: name a folder with a saved tokenizer, or a hub id")
    try:
        with hub():
            return cast(PreTrainedTokenizerBase, AutoTokenizer.from_pretrained(name, trust_remote_code=False))
    # whatever goes wrong in there (no network, no such repository, damaged or foreign files), it is the
    # name's fault
    except Exception as error:
        surface_own_fault(error)
        place = "folder" if folder.is_dir() else "the Hugging Face hub"
        raise TokenizerError(
            f"tokenizer {name!r} could not be loaded from {place} ({one_line(error)}); "
            f"{PERCEIVER_TOKENIZER!r} needs no download"
        ) from error


def byte_offset(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The id of byte 0 if the tokenizer's tokens are the UTF-8 bytes in their order, otherwise None.

    Told by what the tokenizer does, so that it does not matter where it comes from.
    """
    if tokenizer.is_fast:
        return None
    probe = "aé€😀\n"
    ids = tokenizer(probe, add_special_tokens=False)["input_ids"]
    offset = ids[0] - ord("a") if ids else -1
    return offset if offset >= 0 and ids == [offset + byte for byte in probe.encode()] else None


def mask_token_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id of the mask token.

    Raises:
        TokenizerError: If there is none.
    """
    if tokenizer.mask_token_id is None:
        raise TokenizerError(
            f"tokenizer {tokenizer.name_or_path or type(tokenizer).__name__!r} has no mask token: masked language "
            f"modeling needs one that has, such as {PERCEIVER_TOKENIZER!r}"
        )
    return int(tokenizer.mask_token_id)


def document_end_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id of the token that ends a document: EOS, or SEP where there is no EOS.

    Raises:
        TokenizerError: If there is neither.
    """
    end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
    if end is None:
        raise TokenizerError(
            f"tokenizer {tokenizer.name_or_path or type(tokenizer).__name__!r} has neither an EOS nor a SEP token: "
            "leave out add_eos_token"
        )
    return int(end)


def check_words(tokenizer: PreTrainedTokenizerBase) -> None:
    """Make sure that the tokenizer can say where a word ends.

    Raises:
        TokenizerError: If it cannot: it is slow, and not a byte tokenizer, or it does not split text at words
            at all.
    """
    if byte_offset(tokenizer) is not None:
        return
    name = tokenizer.name_or_path or type(tokenizer).__name__
    if not tokenizer.is_fast:
        raise TokenizerError(
            f"tokenizer {name!r} has no fast version, so its words are not known: "
            "pass mask_words=false for token masking"
        )
    words = set(tokenizer("one two", add_special_tokens=False).word_ids()) - {None}
    if len(words) < 2:
        raise TokenizerError(
            f"tokenizer {name!r} does not split text into words: pass mask_words=false for token masking"
        )


def serialize_tokenizer(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """All that :func:`deserialize_tokenizer` needs, as plain strings, numbers and dicts (for a checkpoint).

    Raises:
        TokenizerError: If it is a slow tokenizer other than the Perceiver's, which has no self-contained
            form.
    """
    common: dict[str, Any] = {
        "name": str(tokenizer.name_or_path or ""),
        "padding_side": tokenizer.padding_side,
        # "no limit" is a number of 31 digits, more than a serialiser need cope with
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
            f"tokenizer {common['name'] or type(tokenizer).__name__!r} cannot be stored in a checkpoint: "
            "it has no fast version"
        )
    return {"kind": "fast", "json": backend.to_str(), **common}


def deserialize_tokenizer(state: dict[str, Any]) -> PreTrainedTokenizerBase:
    """The tokenizer that :func:`serialize_tokenizer` described.

    Raises:
        TokenizerError: If the description is of another kind.
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
        raise TokenizerError(f"unknown kind of tokenizer {state['kind']!r}: known are 'fast' and 'perceiver'")
    tokenizer.name_or_path = state["name"]
    return tokenizer
