"""Secrets out: what a run stores of settings never holds a password, a token or a key.

A name is split into words first, so that `hf_token` is a secret and `tokenizer`, `max_tokens`, `author` are none.
Values that look like a secret are taken out whatever their name is.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

REDACTED = "[redacted]"
"""What stands in place of a secret."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SECRET_WORDS = _words(
    "accesskey accesstoken apikey apikeys auth authorization authtoken bearer cookie cookies cred credential "
    "credentials creds passphrase passwd password passwords privatekey pwd secret secretkey secrets"
)
_KEY_OWNERS = _words(
    "access account anthropic api aws azure comet deploy encryption license neptune openai private service "
    "signing ssh wandb"
)
"""With one of these words in front a `key` is a secret; by itself it is a part of attention or of a mapping."""
_TEXT_TOKENS = _words(
    "bos class cls drop end eos image kind level mask merging mixer mixing order pad padding per pool prefix "
    "register sep special start stop type unk unknown"
)
"""With one of these words a `token` is a piece of text: `eos_token`, `pad_token`."""

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_LOOKS_SECRET = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    r"|\b(?:hf_|gh[pousr]_|npm_)[A-Za-z0-9]{20,}"
    r"|\b(?:github_pat_|glpat-|xox[abeoprs]-|sk-)(?=[A-Za-z_\-]*[0-9])[A-Za-z0-9_\-]{16,}"
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"
    r"|\bAIza[A-Za-z0-9_\-]{35}"
    r"|\beyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]*"
    r"|\b[Bb]earer +[A-Za-z0-9._~+/\-]{8,}=*",
    re.DOTALL,
)
_URL_PASSWORD = re.compile(r"(://[^/\s:@]*:)[^/\s@]+(?=@)")
_URL_ARGUMENT = re.compile(r"([?&])([\w.\-]+)=([^&\s#]+)")
_ASSIGNED = re.compile(r"([-+~]{0,2}[A-Za-z][\w.\-]*)=(.+)", re.DOTALL)
_OPTION = re.compile(r"--?[A-Za-z][\w.\-]*")
_OPTION_IN_TEXT = re.compile(r"(?<!\S)(--?[A-Za-z][\w.\-]*)(=|\s+)(\S+)")


def names_secret(name: str, value: Any = "") -> bool:
    """Say whether a setting of this name holds a secret.

    A number or a yes-or-no under a name with `token` is none: `token_dim=64`, `use_auth_token=True`.
    """
    if isinstance(value, bool) or value is None:
        return False
    words = [word.lower() for word in _WORD.findall(name)]
    pairs = list(itertools.pairwise(words))
    if not _SECRET_WORDS.isdisjoint(words):
        return True
    if any(owner in _KEY_OWNERS and word in ("key", "keys") for owner, word in pairs):
        return True
    if isinstance(value, int | float):
        return False
    if any(owner in _KEY_OWNERS and word == "tokens" for owner, word in pairs):
        return True
    return "token" in words and _TEXT_TOKENS.isdisjoint(words)


def redact(value: Any) -> Any:
    """Return a copy of plain data (mappings, sequences, texts, numbers) without its secrets."""
    if isinstance(value, Mapping):
        return {key: _hidden(item) if names_secret(str(key), item) else redact(item) for key, item in value.items()}
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return _redact_arguments(value)
    return value


def redact_text(text: str) -> str:
    """Return a text without what looks like a secret: known kinds of keys, passwords in URLs, `--token X`."""
    text = _LOOKS_SECRET.sub(REDACTED, text)
    text = _URL_PASSWORD.sub(rf"\g<1>{REDACTED}", text)
    text = _URL_ARGUMENT.sub(lambda m: f"{m[1]}{m[2]}={REDACTED}" if names_secret(m[2], _typed(m[3])) else m[0], text)
    whole = _ASSIGNED.fullmatch(text)
    if whole and names_secret(whole[1], _typed(whole[2])):
        return f"{whole[1]}={REDACTED}"
    return _OPTION_IN_TEXT.sub(lambda m: f"{m[1]}{m[2]}{REDACTED}" if names_secret(m[1], _typed(m[3])) else m[0], text)


def _redact_arguments(values: Sequence[Any]) -> list[Any]:
    """Redact a list, which may be a command line: `--api-key X` hides X."""
    kept: list[Any] = []
    option = ""
    for value in values:
        text = value if isinstance(value, str) else ""
        if option and text and not text.startswith("--") and names_secret(option, _typed(text)):
            kept.append(REDACTED)
            option = ""
        else:
            kept.append(redact(value))
            option = text if _OPTION.fullmatch(text) else ""
    return kept


def _hidden(value: Any) -> Any:
    """Hide a value and keep its shape: how many entries, which names."""
    if isinstance(value, Mapping):
        return {key: _hidden(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray):
        return [_hidden(item) for item in value]
    return value if isinstance(value, bool) or value is None or value == "" else REDACTED


def _typed(text: str) -> Any:
    """Return a number for a text that is one."""
    try:
        return float(text)
    except ValueError:
        return text
