"""Small trainings built for faults that the ordinary families cannot show: twins, codes, attention that is written out.

The first half may be tuned on, the second may not. Shapes: B batch, T time, D width, H heads, K width of a head.
"""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, AdamW, RMSprop

from benchmarks.cases import data as data_sets
from benchmarks.cases.families import (
    Mlp,
    Vae,
    classification,
    divergence,
    family,
    negative_elbo,
    tell_code,
    training_on,
)
from benchmarks.cases.training import Batch, Data, Metrics, Observer, Training


def neighbours(model: nn.Module, data: Data) -> Callable[[], Metrics]:
    """How often the nearest neighbour in the representation has the same class, and how far representations spread."""

    def evaluate() -> Metrics:
        known, held_out = (F.normalize(model(x)) for x in (data.x_train, data.x_validation))
        nearest = data.y_train[(held_out @ known.T).argmax(1)]
        return {
            "neighbours": (nearest == data.y_validation).float().mean().item(),
            "spread": held_out.std(0).mean().item() * held_out.shape[1] ** 0.5,
        }

    return evaluate


def tell_representation(training: Training) -> Training:
    """Let the user hand over the representation of each training batch."""
    latest: list[Tensor] = []

    def remember(model: nn.Module, _: Any, output: Tensor) -> None:
        if model.training:
            latest[:] = [output.detach()]

    def told(observer: Observer) -> None:
        if latest:  # nothing, where a fault keeps the model out of training mode
            observer.examine(kind="representation", representation=latest[0])

    training.model.register_forward_hook(remember)
    training.told = told
    return training


class Twins(nn.Module):
    """An encoder, and a predictor of one view's representation from the other's."""

    def __init__(self, inputs: int, width: int, code: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(inputs, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, code)
        )  # fmt: skip
        self.predictor = nn.Sequential(nn.Linear(code, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, code))

    def forward(self, x: Tensor) -> Tensor:
        """The representation."""
        return self.encoder(x)  # type: ignore[no-any-return]


def twin_loss(model: nn.Module, batch: Batch, noise: float, stop: bool = True) -> Tensor:
    """Minus the cosine between one view's prediction and the other view's representation, which is held still."""
    assert isinstance(model, Twins)
    one, two = (model(batch[0] + noise * torch.randn_like(batch[0])) for _ in range(2))
    first, second = (one.detach(), two.detach()) if stop else (one, two)
    similarity = F.cosine_similarity(model.predictor(one), second) + F.cosine_similarity(model.predictor(two), first)
    return -similarity.mean() / 2


def twins(seed: int, table: bool) -> Training:
    """Two noisy views of a digit, or of a row of a table, with SimSiam's loss."""
    torch.manual_seed(seed)
    data = data_sets.standardised("breast_cancer", seed, validation=150) if table else data_sets.digits(seed)
    model = Twins(data.x_train.shape[1], 96, 32)
    training = training_on(
        data, model, SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-2), F.mse_loss, lambda *_: {},
        seed=seed, batch_size=64, target=("neighbours", "higher", 0.85), middle="encoder.3", head="predictor.3",
    )  # fmt: skip
    training.loss = partial(twin_loss, noise=1.2 if table else 0.4)
    training.evaluate = neighbours(model, data)
    return tell_representation(training)


def table_elbo(output: tuple[Tensor, Tensor, Tensor], x: Tensor, beta: float = 1.0) -> Tensor:
    """Squared error plus `beta` times the divergence from the prior, per row of a table."""
    values, mean, log_variance = output
    return (2.0 * (values - x).square().sum() + beta * divergence(mean, log_variance)) / len(x)


def table_vae(seed: int) -> Training:
    """The columns of a table with a variational auto-encoder and Adam."""
    torch.manual_seed(seed)
    table = data_sets.standardised("breast_cancer", seed, validation=150)
    model = Vae(30, 48, 6)
    training = training_on(
        Data(x_train=table.x_train, y_train=table.x_train.clone(),
             x_validation=table.x_validation, y_validation=table.x_validation),
        model, Adam(model.parameters(), lr=3e-3), table_elbo,
        lambda output, x: {"loss": table_elbo(output, x).item(), "error": F.mse_loss(output[0], x).item()},
        seed=seed, batch_size=32, target=("error", "lower", 0.35), middle="encoder.2", head="decoder.2",
    )  # fmt: skip
    return tell_code(training)


class Attender(nn.Module):
    """Written-out attention over a short sequence, then a read-out of the mean."""

    def __init__(self, symbols: int, length: int, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.embed, self.position = nn.Embedding(symbols, width), nn.Embedding(length, width)
        self.norm, self.qkv, self.out = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mix, self.head = nn.Linear(width, 2 * width), nn.Linear(2 * width, symbols)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Logits."""
        x_BTD = self.embed(tokens_BT) + self.position(torch.arange(tokens_BT.shape[1]))
        q_BHTK, k_BHTK, v_BHTK = self.qkv(self.norm(x_BTD)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        weights_BHTT = (q_BHTK @ k_BHTK.transpose(-1, -2) / q_BHTK.shape[-1] ** 0.5).softmax(-1)
        x_BTD = x_BTD + self.out((weights_BHTT @ v_BHTK).transpose(1, 2).flatten(2))
        return self.head(F.relu(self.mix(x_BTD.mean(1))))  # type: ignore[no-any-return]


def attender(seed: int) -> Training:
    """The most frequent symbol of a sequence with one written-out attention and Adam."""
    torch.manual_seed(seed)
    model = Attender(4, 9, 32, 4)
    return training_on(
        data_sets.most_frequent_symbol(seed), model, Adam(model.parameters(), lr=3e-3), F.cross_entropy, classification,
        seed=seed, batch_size=64, target=("accuracy", "higher", 0.85), middle="qkv",
    )  # fmt: skip


# Not to be tuned on


class Bootstrap(nn.Module):
    """A convolutional encoder, a predictor, and a slowly following copy of the encoder that gives the targets."""

    def __init__(self, code: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(),
            nn.MaxPool2d(2), nn.Flatten(), nn.Linear(24 * 16, code),
        )  # fmt: skip
        self.predictor = nn.Sequential(nn.Linear(code, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, code))
        self.target = copy.deepcopy(self.encoder).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """The representation."""
        return self.encoder(x)  # type: ignore[no-any-return]


def bootstrap_loss(model: nn.Module, batch: Batch) -> Tensor:
    """The squared distance, on the sphere, between a prediction and the following copy's view."""
    assert isinstance(model, Bootstrap)
    one, two = (batch[0] + 0.2 * torch.randn_like(batch[0]) for _ in range(2))
    with torch.no_grad():
        target = F.normalize(model.target(two))
    return (F.normalize(model.predictor(model(one))) - target).square().sum(1).mean()


def bootstrap(seed: int) -> Training:
    """Noisy views of a digit with BYOL's loss and Adam; the copy follows by 1 % a step."""
    torch.manual_seed(seed)
    data = data_sets.digits(seed)
    model = Bootstrap(32)
    optimizer = Adam([*model.encoder.parameters(), *model.predictor.parameters()], lr=1e-3)
    training = training_on(
        data, model, optimizer, F.mse_loss, lambda *_: {},
        seed=seed, batch_size=64, target=("neighbours", "higher", 0.85), middle="encoder.1", head="predictor.3",
    )  # fmt: skip

    def follow(*_: object) -> None:
        with torch.no_grad():
            for slow, fast in zip(model.target.parameters(), model.encoder.parameters(), strict=True):
                slow.lerp_(fast, 0.01)

    optimizer.register_step_post_hook(follow)
    training.loss, training.evaluate = bootstrap_loss, neighbours(model, data)
    return tell_representation(training)


class ConvolutionalVae(nn.Module):
    """A variational auto-encoder for images of 8 x 8 pixels."""

    def __init__(self, code: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.SiLU(), nn.Flatten(),
            nn.Linear(256, 2 * code),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.Linear(code, 256), nn.SiLU(), nn.Unflatten(1, (16, 4, 4)), nn.ConvTranspose2d(16, 1, 4, 2, 1)
        )  # fmt: skip

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of the pixels, mean and log-variance of the code; the code is the mean in evaluation mode."""
        mean, log_variance = self.encoder(x).chunk(2, dim=-1)
        noise = torch.randn_like(mean) if self.training else torch.zeros_like(mean)
        return self.decoder(mean + noise * (0.5 * log_variance).exp()).flatten(1), mean, log_variance


def convolutional_vae(seed: int) -> Training:
    """Digits with a convolutional variational auto-encoder and AdamW."""
    torch.manual_seed(seed)
    images = data_sets.digits(seed)
    model = ConvolutionalVae(6)
    training = training_on(
        Data(x_train=images.x_train, y_train=images.x_train.clone(),
             x_validation=images.x_validation, y_validation=images.x_validation),
        model, AdamW(model.parameters(), lr=4e-3), negative_elbo,
        lambda output, x: {"loss": negative_elbo(output, x).item()},
        seed=seed, batch_size=64, target=("loss", "lower", 25.5), middle="encoder.4", head="decoder.3",
    )  # fmt: skip
    return tell_code(training)


class Encoder(nn.Module):
    """PyTorch's own transformer encoder over characters, classifying each."""

    def __init__(self, vocabulary: int, width: int, length: int, tags: int) -> None:
        super().__init__()
        self.embed, self.position = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, tags)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Logits, BTV."""
        x_BTD = self.embed(tokens_BT) + self.position(torch.arange(tokens_BT.shape[1]))
        return self.head(self.norm(self.layers(x_BTD)))  # type: ignore[no-any-return]


def encoder(seed: int) -> Training:
    """Token kinds of Python source with a transformer encoder and Adam."""
    torch.manual_seed(seed)
    model = Encoder(len(data_sets.ALPHABET), 32, 32, len(data_sets.TAGS) + 1)
    return training_on(
        data_sets.tagged_characters(seed, 32), model, Adam(model.parameters(), lr=3e-3),
        lambda logits_BTV, y_BT: F.cross_entropy(logits_BTV.transpose(1, 2), y_BT),
        lambda logits_BTV, y_BT: classification(logits_BTV.flatten(0, 1), y_BT.flatten()),
        seed=seed, batch_size=16, target=("accuracy", "higher", 0.65), middle="layers.layers.0",
    )  # fmt: skip


def wine(seed: int) -> Training:
    """Kinds of wine with a network of rectified units and RMSprop."""
    torch.manual_seed(seed)
    model = Mlp(13, 32, 3)
    return training_on(
        data_sets.standardised("wine", seed, validation=50), model, RMSprop(model.parameters(), lr=1e-3),
        F.cross_entropy, classification,
        seed=seed, batch_size=16, target=("accuracy", "higher", 0.9), middle="body.2",
    )  # fmt: skip


SPECIAL_FAMILIES = {
    each.name: each
    for each in (
        family("twins", partial(twins, table=False), "neighbours", 0.8, classifies=False),
        family("table-twins", partial(twins, table=True), "neighbours", 0.8, classifies=False),
        family("table-vae", table_vae, "error", 0.6, classifies=False),
        family("attender", attender, "accuracy", 0.5, classifies=True),
    )
}
"""Special trainings that thresholds may be tuned on."""

UNSEEN_SPECIAL_FAMILIES = {
    each.name: each
    for each in (
        family("bootstrap", bootstrap, "neighbours", 0.8, classifies=False),
        family("convolutional-vae", convolutional_vae, "loss", 36.0, classifies=False),
        family("encoder", encoder, "accuracy", 0.5, classifies=True),
        family("wine", wine, "accuracy", 0.85, classifies=True),
    )
}
"""Special trainings that nothing is tuned on."""
