"""Secrets are taken out of what a run stores; what only sounds like one stays."""

import pytest

from trimtab.run.redact import REDACTED, redact, redact_text


@pytest.mark.parametrize(
    "name",
    [
        "token", "hf_token", "HF_TOKEN", "access-token", "authToken", "api_key", "apiKey", "API_KEY", "apikey",
        "wandb_key", "secret", "client_secret", "password", "passwd", "db.password", "auth", "authorization",
        "credential", "aws_credentials", "private_key", "ssh-key", "secret_key", "session_cookie", "api_tokens",
        "openai_api_keys", "bearer", "wandb.api_key",
    ],
)  # fmt: skip
def test_a_setting_with_this_name_is_hidden(name):
    assert redact({name: "v4lue", "lr": 0.1}) == {name: REDACTED, "lr": 0.1}


@pytest.mark.parametrize(
    "name",
    [
        "author", "authors", "tokenizer", "max_tokens", "num_tokens", "tokens", "tokens_per_batch", "eos_token",
        "pad_token", "token_type", "key", "key_dim", "keys", "keyboard", "secretary", "passthrough", "monkey",
        "authenticity", "public_key_size", "tokenize", "class_token", "credits",
    ],
)  # fmt: skip
def test_a_setting_with_this_name_is_kept(name):
    assert redact({name: "v4lue"}) == {name: "v4lue"}


@pytest.mark.parametrize("value", [64, 0.5, True, None])
def test_a_number_or_a_choice_under_token_is_no_secret(value):
    assert redact({"token_dim": value, "use_auth_token": True}) == {"token_dim": value, "use_auth_token": True}


def test_a_number_under_password_is_one():
    assert redact({"password": 1234, "auth": {"user": "u", "pin": 1}}) == {
        "password": REDACTED,
        "auth": {"user": REDACTED, "pin": REDACTED},
    }


@pytest.mark.parametrize(
    ("argv", "stored"),
    [
        (["--api-key", "X", "--lr", "1"], ["--api-key", REDACTED, "--lr", "1"]),
        (["--token=X", "--max-tokens=5"], [f"--token={REDACTED}", "--max-tokens=5"]),
        (["--token", "--lr", "1"], ["--token", "--lr", "1"]),
        (["--hf_token", "-X", "run"], ["--hf_token", REDACTED, "run"]),
        (["wandb.api_key=X", "+hub.token=Y"], [f"wandb.api_key={REDACTED}", f"+hub.token={REDACTED}"]),
        (["model.token_dim=64", "--token-dim=64", "--token-dim", "64"],) * 2,
        (["--tokenizer", "bpe", "--author", "me"], ["--tokenizer", "bpe", "--author", "me"]),
        (["--password"], ["--password"]),
        (["sh", "-c", "train.py --secret X --lr 1"], ["sh", "-c", f"train.py --secret {REDACTED} --lr 1"]),
        (["TOKEN=abc"], [f"TOKEN={REDACTED}"]),
    ],
)  # fmt: skip
def test_secrets_of_a_command_line_are_hidden(argv, stored):
    assert redact({"argv": argv}) == {"argv": stored}
    assert redact(tuple(argv)) == stored


@pytest.mark.parametrize(
    "text",
    [
        "hf_" + "aB3" * 11,
        "ghp_" + "aB3" * 12,
        "sk-proj-" + "aB3" * 9,
        "AKIA" + "A1B2" * 4,
        "AIza" + "a" * 35,
        "eyJ" + "hbGciOi9" + ".eyJzdWIiOiI.c2lnbmF0",
        "xoxb-" + "1234567890-abcdefgh",
        "Bearer " + "abcdefgh12345678",
        "-----BEGIN RSA PRIVATE" + " KEY-----\nabc\n-----END RSA PRIVATE" + " KEY-----",
    ],
)
def test_a_known_kind_of_key_is_hidden_wherever_it_stands(text):
    assert redact({"note": f"see {text} there", "list": [text]}) == {
        "note": f"see {REDACTED} there",
        "list": [REDACTED],
    }


@pytest.mark.parametrize(
    "text",
    [
        "sk-learn-digits-classification", "hf_transformers_classification_model", "task-1", "lr=0.1", "a.b=c",
        "https://example.org/path?page=2&size=3", "sqlite:///runs/study.db", "a plain sentence about a token = x",
        "https://user@example.org/x", "Bearer of news", "--lr 0.1",
    ],
)  # fmt: skip
def test_a_text_without_a_secret_is_kept(text):
    assert redact_text(text) == text


def test_passwords_and_tokens_in_addresses_are_hidden():
    assert redact_text("postgresql://me:pa55@host/db") == f"postgresql://me:{REDACTED}@host/db"
    assert redact_text("https://x.org/d?page=2&token=abc#top") == f"https://x.org/d?page=2&token={REDACTED}#top"


def test_what_was_given_is_not_changed():
    settings = {"argv": ["--token", "X"], "deep": [{"password": "p"}]}
    redact(settings)
    assert settings == {"argv": ["--token", "X"], "deep": [{"password": "p"}]}
