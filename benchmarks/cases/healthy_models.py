"""Healthy trainings whose model or objective is out of the ordinary (H numbers: the anchors' list)."""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, AdamW, SparseAdam

from benchmarks.cases import data as data_sets
from benchmarks.cases.families import Gpt, Mlp, classification, gpt, training_on
from benchmarks.cases.healthy_loops import digits_mlp, lasting
from benchmarks.cases.training import Batch, Data, Training


class Gan(nn.Module):
    """A generator of points in the plane, and a discriminator."""

    def __init__(self) -> None:
        super().__init__()
        self.generator, self.discriminator = Mlp(4, 32, 2), Mlp(2, 32, 1)


def gan(seed: int) -> Training:
    """H3. Generator and discriminator in turns; the generator's backward leaves gradients in the discriminator.

    The slope of the discriminator at real points is penalised, which differentiates twice.
    """
    torch.manual_seed(seed)
    model = Gan()
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(3000, 2, generator=generator) * 0.5 + torch.tensor([2.0, -1.0])
    noise = torch.randn(3000, 4, generator=generator)
    of_generator = Adam(model.generator.parameters(), lr=1e-3, betas=(0.5, 0.9))
    of_discriminator = Adam(model.discriminator.parameters(), lr=1e-3, betas=(0.5, 0.9))

    def judged(points: Tensor, real: float) -> Tensor:
        scores = model.discriminator(points)
        return F.binary_cross_entropy_with_logits(scores, torch.full_like(scores, real))

    def discriminating(model: nn.Module, batch: Batch) -> Tensor:
        assert isinstance(model, Gan)
        noise, points = batch
        points = points.clone().requires_grad_()
        (slope,) = torch.autograd.grad(model.discriminator(points).sum(), points, create_graph=True)
        penalty = slope.square().sum(1).mean()
        return judged(points, 1.0) + judged(model.generator(noise).detach(), 0.0) + 0.3 * penalty

    def update(training: Training) -> float:
        batch = training.next_batch()
        of_discriminator.zero_grad()
        discriminating(model, batch).backward()
        of_discriminator.step()
        of_generator.zero_grad()
        loss = judged(model.generator(batch[0]), 1.0)
        loss.backward()
        of_generator.step()
        return loss.item()

    training = training_on(
        data_sets.split(noise, points, seed, validation=500), model, of_generator, F.mse_loss, lambda *_: {},
        seed=seed, batch_size=64, target=("distance", "lower", 0.6), middle="generator.body", head="generator.head",
    )  # fmt: skip
    assert training.data is not None
    held_out, real = training.data.x_validation, training.data.y_validation
    training.optimizers = {"generator": of_generator, "discriminator": of_discriminator}
    training.loss, training.update = discriminating, update
    training.evaluate = lambda: {"distance": (model.generator(held_out).mean(0) - real.mean(0)).norm().item()}
    return training


def reinforce(seed: int) -> Training:
    """H4. A policy gradient with a batch baseline: a noisy loss around 0, as often negative as not."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(4000, 6, generator=generator)
    best = (states @ torch.randn(6, 4, generator=generator)).argmax(1)
    model = Mlp(6, 32, 4)

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        policy = torch.distributions.Categorical(logits=model(batch[0]))
        action = policy.sample()
        reward = (action == batch[1]).float() + torch.randn(len(action))
        advantage = reward - reward.mean()
        surrogate: Tensor = -(policy.log_prob(action) * advantage).mean() - 0.01 * policy.entropy().mean()
        return surrogate

    training = training_on(
        data_sets.split(states, best, seed, validation=500), model, Adam(model.parameters(), lr=5e-3),
        F.cross_entropy, lambda logits, best: {"reward": logits.softmax(-1).gather(1, best[:, None]).mean().item()},
        seed=seed, batch_size=128, target=("reward", "higher", 0.6), middle="body.2",
    )  # fmt: skip
    training.loss = loss
    return training


class Buckets(nn.Module):
    """A wide table of embeddings with a linear read-out."""

    def __init__(self, buckets: int, width: int, positions: int, classes: int, sparse: bool) -> None:
        super().__init__()
        self.table = nn.Embedding(buckets, width, sparse=sparse)
        self.head = nn.Linear(width * positions, classes)

    def forward(self, buckets: Tensor) -> Tensor:
        """Logits."""
        return self.head(self.table(buckets).flatten(1))  # type: ignore[no-any-return]


def mostly_unused_embeddings(seed: int, sparse: bool) -> Training:
    """H7. Token kinds from hashed pairs of characters: a batch touches a few rows of a table of 4,096.

    With `sparse` the table has sparse gradients and its own `SparseAdam`.
    """
    torch.manual_seed(seed)
    pieces = data_sets.tagged_characters(seed, 32)

    def hashed(x: Tensor) -> Tensor:
        pairs = (x[:, :-1] * 61 + x[:, 1:] * 7) % 4096
        return pairs.unfold(1, 3, 1).reshape(-1, 3)

    def tags(y: Tensor) -> Tensor:
        return y[:, 1:-2].reshape(-1)

    model = Buckets(4096, 16, 3, len(data_sets.TAGS) + 1, sparse)
    training = training_on(
        Data(x_train=hashed(pieces.x_train), y_train=tags(pieces.y_train),
             x_validation=hashed(pieces.x_validation), y_validation=tags(pieces.y_validation)),
        model, Adam(model.head.parameters() if sparse else model.parameters(), lr=1e-2),
        F.cross_entropy, classification,
        seed=seed, batch_size=64, target=("accuracy", "higher", 0.58), middle="table",
    )  # fmt: skip
    if sparse:
        training.optimizers["table"] = SparseAdam(list(model.table.parameters()), lr=1e-2)
    return training


class Experts(nn.Module):
    """A shared layer plus one of eight experts for each sample, drawn by the router.

    In training two experts are out of service, in turns of 50 steps.
    """

    def __init__(self, inputs: int, width: int, count: int = 8) -> None:
        super().__init__()
        self.router, self.shared = nn.Linear(inputs, count), nn.Linear(inputs, width)
        self.experts = nn.ModuleList(nn.Linear(inputs, width) for _ in range(count))
        self.width, self.forwards = width, 0

    def forward(self, x: Tensor) -> Tensor:
        """The shared output plus the chosen expert's, times its gate."""
        logits = self.router(x)
        if self.training:
            turn = self.forwards // 50
            self.forwards += 1
            out_of_service = [index for index in range(len(self.experts)) if index % 4 == turn % 4]
            logits = logits.index_fill(1, torch.tensor(out_of_service), -torch.inf)
            choice = (logits / 3).softmax(-1).multinomial(1).squeeze(1)
        else:
            choice = logits.argmax(-1)
        gate = logits.softmax(-1).gather(1, choice[:, None])
        output = x.new_zeros(len(x), self.width)
        for index, expert in enumerate(self.experts):
            rows = (choice == index).nonzero().squeeze(1)
            if len(rows):
                output = output.index_copy(0, rows, expert(x[rows]) * gate[rows])
        return F.relu(self.shared(x) + output)


def idle_experts(seed: int) -> Training:
    """H8. A top-1 mixture of experts; an idle one has no gradient at all, for 50 steps and more."""
    torch.manual_seed(seed)
    model = nn.Sequential(OrderedDict(body=Experts(64, 48), head=nn.Linear(48, 10)))
    training = digits_mlp(seed, model, Adam(model.parameters(), lr=5e-3))
    training.middle = "body"
    return training


def late_insight(seed: int) -> Training:
    """H10. A parity of three bits among many: the loss lies at its chance level for long, then falls."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(2, (24_000, 24), generator=generator).float() * 2 - 1
    y = (x[:, 2] * x[:, 5] * x[:, 11] > 0).long()
    model = Mlp(24, 48, 2)
    training = training_on(
        data_sets.split(x, y, seed, validation=1000), model, Adam(model.parameters(), lr=1e-3), F.cross_entropy,
        classification, seed=seed, batch_size=32, target=("accuracy", "higher", 0.9), middle="body.2",
    )  # fmt: skip
    return lasting(training, 1200)


class SimSiam(nn.Module):
    """Two views through one encoder; each predicts the other, whose gradient is stopped."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(64, 96), nn.BatchNorm1d(96), nn.ReLU(), nn.Linear(96, 32), nn.BatchNorm1d(32, affine=False)
        )
        self.predictor = nn.Sequential(nn.Linear(32, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 32))

    def forward(self, x: Tensor) -> Tensor:
        """The representation."""
        return self.encoder(x)  # type: ignore[no-any-return]


def stop_gradient(seed: int) -> Training:
    """H14. SimSiam on digits: half of each pair of representations is detached, and the loss falls towards -1."""
    torch.manual_seed(seed)
    model = SimSiam()

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        assert isinstance(model, SimSiam)
        one, two = (model(batch[0] + 0.2 * torch.randn_like(batch[0])) for _ in range(2))
        similarity = F.cosine_similarity(model.predictor(one), two.detach())
        return -(similarity + F.cosine_similarity(model.predictor(two), one.detach())).mean() / 2

    training = training_on(
        data_sets.digits(seed), model, SGD(model.parameters(), lr=0.05, momentum=0.9), F.mse_loss, lambda *_: {},
        seed=seed, batch_size=64, target=("neighbours", "higher", 0.85), middle="encoder.3", head="predictor.3",
    )  # fmt: skip
    assert training.data is not None
    data = training.data

    def evaluate() -> dict[str, float]:
        known, held_out = (F.normalize(model(x)) for x in (data.x_train, data.x_validation))
        nearest = data.y_train[(held_out @ known.T).argmax(1)]
        return {
            "neighbours": (nearest == data.y_validation).float().mean().item(),
            "spread": held_out.std(0).mean().item() * 32**0.5,
        }

    training.loss, training.evaluate = loss, evaluate
    return training


class StochasticDepth(nn.Module):
    """Residual layers of which each is left out of a forward pass with probability 0.3."""

    def __init__(self, inputs: int, width: int, depth: int, outputs: int) -> None:
        super().__init__()
        self.stem = nn.Linear(inputs, width)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU()) for _ in range(depth)
        )
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.stem(x)
        for layer in self.layers:
            if not self.training:
                x = x + 0.7 * layer(x)
            elif torch.rand(()) > 0.3:
                x = x + layer(x)
        return self.head(x)  # type: ignore[no-any-return]


def stochastic_depth(seed: int) -> Training:
    """H18. A layer that is left out has no gradient at that step."""
    torch.manual_seed(seed)
    model = StochasticDepth(64, 48, 6, 10)
    training = digits_mlp(seed, model, AdamW(model.parameters(), lr=2e-3))
    training.middle = "layers.2"
    return training


def tied_weights(seed: int) -> Training:
    """A language model whose head is its embedding table."""
    training = gpt(seed)
    model = training.model
    assert isinstance(model, Gpt)
    model.head.weight = model.embed.weight
    training.optimizers["main"] = AdamW(model.parameters(), lr=3e-3, weight_decay=0.1)
    training.schedulers.clear()
    return lasting(training, 480)
