"""Three trainings that no threshold and no weight is tuned on; the second injections live here."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, AdamW
from torch.optim.lr_scheduler import LinearLR

from benchmarks.cases import data as data_sets
from benchmarks.cases.families import STEPS, classification, family, training_on
from benchmarks.cases.training import Training


class Residual(nn.Module):
    """A normalised two-layer branch beside the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """The sum."""
        return x + self.branch(x)  # type: ignore[no-any-return]


class Tabular(nn.Module):
    """A residual network for rows of a table."""

    def __init__(self, columns: int, width: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Linear(columns, width)
        self.blocks = nn.Sequential(Residual(width), Residual(width), Residual(width))
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.head(self.blocks(self.stem(x)))  # type: ignore[no-any-return]


def tabular(seed: int) -> Training:
    """Breast cancer with a residual network and SGD with Nesterov momentum."""
    torch.manual_seed(seed)
    model = Tabular(30, 32, 2)
    return training_on(
        data_sets.standardised("breast_cancer", seed, validation=150), model,
        SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True), F.cross_entropy, classification,
        seed=seed, batch_size=32, target=("accuracy", "higher", 0.9), middle="blocks.1",
    )  # fmt: skip


class Tagger(nn.Module):
    """A bidirectional LSTM that classifies each character."""

    def __init__(self, vocabulary: int, hidden: int, tags: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, hidden)
        self.lstm = nn.LSTM(hidden, hidden, batch_first=True, bidirectional=True)
        self.mix, self.head = nn.Linear(2 * hidden, hidden), nn.Linear(hidden, tags)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Logits, BTV."""
        states_BTD, _ = self.lstm(self.embed(tokens_BT))
        return self.head(torch.tanh(self.mix(states_BTD)))  # type: ignore[no-any-return]


def tagger(seed: int) -> Training:
    """Token kinds of Python source with an LSTM, AdamW and a linear decay to nothing."""
    torch.manual_seed(seed)
    model = Tagger(len(data_sets.ALPHABET), 32, len(data_sets.TAGS) + 1)
    optimizer = AdamW(model.parameters(), lr=5e-3)
    training = training_on(
        data_sets.tagged_characters(seed, 32), model, optimizer,
        lambda logits_BTV, y_BT: F.cross_entropy(logits_BTV.transpose(1, 2), y_BT),
        lambda logits_BTV, y_BT: classification(logits_BTV.flatten(0, 1), y_BT.flatten()),
        seed=seed, batch_size=16, target=("accuracy", "higher", 0.75), middle="mix",
    )  # fmt: skip
    training.schedulers.append(LinearLR(optimizer, 1.0, 0.0, total_iters=STEPS))
    return training


class Denoiser(nn.Module):
    """A convolutional auto-encoder."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, channels, 3, stride=2, padding=1), nn.SiLU(),
            nn.Conv2d(channels, 2 * channels, 3, padding=1), nn.SiLU(),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(2 * channels, channels, 4, stride=2, padding=1), nn.SiLU(),
            nn.Conv2d(channels, 1, 3, padding=1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """The clean image."""
        return self.decoder(self.encoder(x))  # type: ignore[no-any-return]


def denoiser(seed: int) -> Training:
    """Noisy digits with a convolutional auto-encoder, mean squared error and Adam."""
    torch.manual_seed(seed)
    model = Denoiser(16)
    return training_on(
        data_sets.noisy_digits(seed, noise=0.3), model, Adam(model.parameters(), lr=3e-3), F.mse_loss,
        lambda image, clean: {"loss": F.mse_loss(image, clean).item()},
        seed=seed, batch_size=32, target=("loss", "lower", 0.03), middle="encoder.2", head="decoder.2",
    )  # fmt: skip


UNSEEN_FAMILIES = {
    each.name: each
    for each in (
        family("tabular", tabular, "accuracy", 0.88, classifies=True),
        family("tagger", tagger, "accuracy", 0.55, classifies=True),
        family("denoiser", denoiser, "loss", 0.045, classifies=False),
    )
}
"""The families of the second injections."""
