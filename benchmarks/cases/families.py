"""Six small real trainings that reach a stated validation metric in 360 steps and at most 6 CPU seconds.

Shapes: B batch, T time, D width, V vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR

from benchmarks.cases import data as data_sets
from benchmarks.cases.training import Data, Metrics, Milestone, Observer, Training, endless, shuffled

HIGHER_IS_BETTER = ("accuracy", "neighbours")
"""Metrics of the families that are to rise; the others are to fall."""

STEPS = 360
"""Updates of a family's training."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """A kind of training: how to build it from a seed, and a milestone that each healthy run meets early.

    `classifies` says whether the loss is a cross-entropy over classes.
    """

    name: str
    build: Callable[[int], Training]
    milestone: Milestone
    classifies: bool


def training_on(
    data: Data,
    model: nn.Module,
    optimizer: Optimizer,
    criterion: Callable[[Any, Tensor], Tensor],
    measure: Callable[[Any, Tensor], Metrics],
    *,
    seed: int,
    batch_size: int,
    target: tuple[str, Any, float],
    middle: str,
    head: str = "head",
) -> Training:
    """A training of one model on shuffled batches, evaluated on the whole validation part."""
    metric, better, value = target
    return Training(
        seed=seed,
        steps=STEPS,
        model=model,
        optimizers={"main": optimizer},
        data=data,
        batches=endless(shuffled(data.dataset(), batch_size, seed)),
        loss=lambda model, batch: criterion(model(batch[0]), batch[1]),
        evaluate=lambda: measure(model(data.x_validation), data.y_validation),
        target=Milestone(metric=metric, better=better, value=value, step=STEPS - 1),
        middle=middle,
        head=head,
    )


def classification(logits: Tensor, y: Tensor) -> Metrics:
    """Accuracy and cross-entropy."""
    accuracy = (logits.argmax(-1) == y).float().mean().item()
    return {"accuracy": accuracy, "loss": F.cross_entropy(logits, y).item()}


class Mlp(nn.Module):
    """Two hidden layers and a head."""

    def __init__(self, inputs: int, hidden: int, outputs: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(dropout)
        )
        self.head = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Logits or values."""
        return self.head(self.body(x))  # type: ignore[no-any-return]


def mlp(seed: int) -> Training:
    """Digits with an MLP and Adam."""
    torch.manual_seed(seed)
    model = Mlp(64, 64, 10)
    return training_on(
        data_sets.digits(seed), model, Adam(model.parameters(), lr=2e-3), F.cross_entropy, classification,
        seed=seed, batch_size=64, target=("accuracy", "higher", 0.93), middle="body.2",
    )  # fmt: skip


class Cnn(nn.Module):
    """Two convolutions with batch normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(12, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        )  # fmt: skip
        self.head = nn.Linear(24 * 4, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.head(self.body(x.view(-1, 1, 8, 8)))  # type: ignore[no-any-return]


def cnn(seed: int) -> Training:
    """Digits with a convolutional network, SGD with momentum and a cosine schedule."""
    torch.manual_seed(seed)
    model = Cnn()
    optimizer = SGD(model.parameters(), lr=0.03, momentum=0.9, weight_decay=1e-4)
    training = training_on(
        data_sets.digits(seed), model, optimizer, F.cross_entropy, classification,
        seed=seed, batch_size=32, target=("accuracy", "higher", 0.95), middle="body.4",
    )  # fmt: skip
    training.schedulers.append(CosineAnnealingLR(optimizer, T_max=STEPS))
    return training


class Block(nn.Module):
    """A causal transformer block, normalised before each part."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x_BTD: Tensor) -> Tensor:
        """The residual stream after attention and MLP."""
        qkv = self.qkv(self.norm_attention(x_BTD)).unflatten(-1, (3, self.heads, -1))
        q_BHTK, k_BHTK, v_BHTK = qkv.permute(2, 0, 3, 1, 4)
        mixed_BHTK = F.scaled_dot_product_attention(q_BHTK, k_BHTK, v_BHTK, is_causal=True)
        x_BTD = x_BTD + self.out(mixed_BHTK.transpose(1, 2).flatten(2))
        return x_BTD + self.mlp(self.norm_mlp(x_BTD))  # type: ignore[no-any-return]


class Gpt(nn.Module):
    """A causal transformer over characters."""

    def __init__(self, vocabulary: int, width: int, length: int) -> None:
        super().__init__()
        self.embed, self.position = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        for table in (self.embed, self.position):
            nn.init.normal_(table.weight, std=0.02)
        self.blocks = nn.Sequential(Block(width, 4), Block(width, 4))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Logits of the next character, BTV."""
        x_BTD = self.embed(tokens_BT) + self.position(torch.arange(tokens_BT.shape[1]))
        return self.head(self.norm(self.blocks(x_BTD)))  # type: ignore[no-any-return]


def gpt(seed: int) -> Training:
    """Characters of Python source with a causal transformer, AdamW, warm-up and clipping."""
    torch.manual_seed(seed)
    model = Gpt(len(data_sets.ALPHABET), 48, length=32)
    optimizer = AdamW(model.parameters(), lr=3e-3, weight_decay=0.1)
    training = training_on(
        data_sets.characters(seed, 32), model, optimizer,
        lambda logits_BTV, y_BT: F.cross_entropy(logits_BTV.flatten(0, 1), y_BT.flatten()),
        lambda logits_BTV, y_BT: classification(logits_BTV.flatten(0, 1), y_BT.flatten()),
        seed=seed, batch_size=16, target=("loss", "lower", 2.1), middle="blocks.0",
    )  # fmt: skip
    training.schedulers.append(LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 20)))
    training.clip = 1.0
    return training


class Vae(nn.Module):
    """A variational auto-encoder with a Gaussian code."""

    def __init__(self, inputs: int, hidden: int, code: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, 2 * code))
        self.decoder = nn.Sequential(nn.Linear(code, hidden), nn.ReLU(), nn.Linear(hidden, inputs))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of the pixels, mean and log-variance of the code; the code is the mean in evaluation mode."""
        mean, log_variance = self.encoder(x).chunk(2, dim=-1)
        noise = torch.randn_like(mean) if self.training else torch.zeros_like(mean)
        return self.decoder(mean + noise * (0.5 * log_variance).exp()), mean, log_variance


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """The summed divergence of Gaussian codes from the prior, in nats."""
    return -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum()


def negative_elbo(output: tuple[Tensor, Tensor, Tensor], x: Tensor, beta: float = 1.0) -> Tensor:
    """Reconstruction of pixels plus `beta` times the divergence from the prior, per image."""
    logits, mean, log_variance = output
    reconstruction = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
    return (reconstruction + beta * divergence(mean, log_variance)) / len(x)


def tell_code(training: Training) -> Training:
    """Let the user of a variational auto-encoder hand over the divergence and the code of each training batch."""
    latest: list[tuple[Tensor, Tensor]] = []

    def remember(model: nn.Module, _: Any, output: tuple[Tensor, Tensor, Tensor]) -> None:
        if model.training:
            latest[:] = [(output[1].detach(), output[2].detach())]

    def told(observer: Observer) -> None:
        mean, log_variance = latest[0]
        observer.record(kl=divergence(mean, log_variance).item() / len(mean))
        observer.examine(kind="latent", code=mean)

    training.model.register_forward_hook(remember)
    training.told = told
    return training


def vae(seed: int) -> Training:
    """Digits with a variational auto-encoder and Adam."""
    torch.manual_seed(seed)
    model = Vae(64, 96, 8)
    images = data_sets.digits(seed)
    training = training_on(
        Data(x_train=images.x_train, y_train=images.x_train.clone(),
             x_validation=images.x_validation, y_validation=images.x_validation),
        model, Adam(model.parameters(), lr=2e-3), negative_elbo,
        lambda output, x: {"loss": negative_elbo(output, x).item()},
        seed=seed, batch_size=64, target=("loss", "lower", 26.0), middle="encoder.2", head="decoder.2",
    )  # fmt: skip
    return tell_code(training)


class Rnn(nn.Module):
    """A GRU whose last state is classified."""

    def __init__(self, symbols: int, hidden: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(symbols, hidden)
        self.gru = nn.GRU(hidden, hidden, batch_first=True)
        self.mix, self.head = nn.Linear(hidden, hidden), nn.Linear(hidden, symbols)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Logits."""
        states_BTD, _ = self.gru(self.embed(tokens_BT))
        return self.head(F.relu(self.mix(states_BTD[:, -1])))  # type: ignore[no-any-return]


def rnn(seed: int) -> Training:
    """The most frequent symbol of a sequence with a GRU, Adam and clipping."""
    torch.manual_seed(seed)
    model = Rnn(4, 32)
    training = training_on(
        data_sets.most_frequent_symbol(seed), model, Adam(model.parameters(), lr=5e-3), F.cross_entropy, classification,
        seed=seed, batch_size=64, target=("accuracy", "higher", 0.85), middle="mix",
    )  # fmt: skip
    training.clip = 1.0
    return training


def regression(seed: int) -> Training:
    """Disease progression of diabetes patients with an MLP and SGD with momentum."""
    torch.manual_seed(seed)
    model = Mlp(10, 32, 1)
    return training_on(
        data_sets.standardised("diabetes", seed, validation=100), model,
        SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-3), F.mse_loss,
        lambda prediction, y: {"loss": F.mse_loss(prediction, y).item()},
        seed=seed, batch_size=32, target=("loss", "lower", 0.75), middle="body.2",
    )  # fmt: skip


def family(name: str, build: Callable[[int], Training], metric: str, value: float, *, classifies: bool) -> Family:
    """A family whose milestone, at step 100, is about `metric`."""
    milestone = Milestone(
        metric=metric, better="higher" if metric in HIGHER_IS_BETTER else "lower", value=value, step=100
    )
    return Family(name=name, build=build, milestone=milestone, classifies=classifies)


FAMILIES = {
    each.name: each
    for each in (
        family("mlp", mlp, "accuracy", 0.80, classifies=True),
        family("cnn", cnn, "accuracy", 0.80, classifies=True),
        family("gpt", gpt, "loss", 2.6, classifies=True),
        family("vae", vae, "loss", 36.0, classifies=False),
        family("rnn", rnn, "accuracy", 0.60, classifies=True),
        family("regression", regression, "loss", 0.7, classifies=False),
    )
}
"""The families that thresholds may be tuned on."""
