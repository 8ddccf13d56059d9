"""Healthy trainings that look like one of the faults: a rule that is too eager finds it here (H numbers: the list)."""

import copy
from collections import deque
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, AdamW
from torch.utils.checkpoint import checkpoint

from benchmarks.cases import data as data_sets
from benchmarks.cases.families import (
    STEPS,
    Cnn,
    Gpt,
    Mlp,
    classification,
    cnn,
    gpt,
    mlp,
    negative_elbo,
    training_on,
    vae,
)
from benchmarks.cases.faults_steps import Adapted
from benchmarks.cases.healthy_loops import digits_mlp, lasting, seeded_mlp
from benchmarks.cases.special_families import Attender
from benchmarks.cases.training import Announcement, Batch, Data, Metrics, Milestone, Training, run
from benchmarks.cases.unseen_families import Tabular, tabular


def curriculum_step(seed: int, kind: str) -> Training:
    """H6. An announced next stage: from step 140 on the images are noisy, the loss triples and falls again."""
    training = mlp(seed)
    healthy, generator = training.batches, training.generator()

    def batches() -> Iterator[Batch]:
        for step, (x, y) in enumerate(healthy):
            yield (x + 0.5 * torch.randn(x.shape, generator=generator), y) if step >= 140 else (x, y)

    training.batches = batches()
    training.announcements = (Announcement(kind=kind, step=140, steps=120, text="noisy images"),)
    return training


def averaged_weights_swapped(seed: int, every: int) -> Training:
    """H17. The running average of the weights takes the place of the weights, near the end, without announcement."""
    training = mlp(seed)
    average = {name: value.clone() for name, value in training.model.state_dict().items()}
    update = training.update

    def averaging(training: Training) -> float:
        if training.step and training.step % every == 0:
            training.model.load_state_dict(average)
        loss = update(training)
        for name, value in training.model.state_dict().items():
            average[name].lerp_(value, 0.05)
        return loss

    training.update = averaging
    return training


def copying_head(seed: int) -> Training:
    """The right attention is one-hot: the answer stands at the place that the first symbol names."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(8, (4000, 9), generator=generator)
    y = x[:, 1:].gather(1, x[:, :1]).squeeze(1)
    model = Pointing(8, 9, 32, 2)
    return training_on(
        data_sets.split(x, y, seed, validation=500), model, Adam(model.parameters(), lr=5e-3), F.cross_entropy,
        classification, seed=seed, batch_size=128, target=("accuracy", "higher", 0.9), middle="qkv",
    )  # fmt: skip


class Pointing(Attender):
    """Written-out attention, read out at the first place."""

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Logits."""
        x_BTD = self.embed(tokens_BT) + self.position(torch.arange(tokens_BT.shape[1]))
        q_BHTK, k_BHTK, v_BHTK = self.qkv(self.norm(x_BTD)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        weights_BHTT = (q_BHTK @ k_BHTK.transpose(-1, -2) / q_BHTK.shape[-1] ** 0.5).softmax(-1)
        x_BTD = x_BTD + self.out((weights_BHTT @ v_BHTK).transpose(1, 2).flatten(2))
        return self.head(F.relu(self.mix(x_BTD[:, 0])))  # type: ignore[no-any-return]


def divergence_annealed(seed: int) -> Training:
    """The weight of the divergence climbs from 0 to 1 over 200 steps: the loss rises while it does."""
    training = vae(seed)
    training.loss = lambda model, batch: negative_elbo(model(batch[0]), batch[1], min(1.0, training.step / 200))
    return training


def classes_collapse(seed: int) -> Training:
    """Trained far beyond the last error: each class is one point, the loss nearly 0, gradients tiny."""
    model = seeded_mlp(seed)
    return lasting(digits_mlp(seed, model, Adam(model.parameters(), lr=3e-3)), 900)


class NormalisedFirst(nn.Module):
    """Batch normalisation of the raw pixels, then a convolutional network."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.network = nn.BatchNorm1d(64), Cnn()

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.network(self.norm(x))  # type: ignore[no-any-return]


def integer_images(seed: int) -> Training:
    """Pixels from 0 to 255, which the model normalises itself."""
    torch.manual_seed(seed)
    model = NormalisedFirst()
    data = data_sets.digits(seed)
    for x in (data.x_train, data.x_validation):
        x.mul_(255.0).round_()
    return training_on(
        data, model, SGD(model.parameters(), lr=0.03, momentum=0.9), F.cross_entropy, classification,
        seed=seed, batch_size=32, target=("accuracy", "higher", 0.93), middle="network.body.4", head="network.head",
    )  # fmt: skip


def rare_class(seed: int) -> Training:
    """19 of 20 labels are the same."""
    torch.manual_seed(seed)
    data = data_sets.digits(seed)
    kept = (data.y_train != 8) | (torch.rand(len(data.y_train), generator=torch.Generator().manual_seed(seed)) < 0.5)
    rare = Data(
        x_train=data.x_train[kept], y_train=(data.y_train[kept] == 8).long(),
        x_validation=data.x_validation, y_validation=(data.y_validation == 8).long(),
    )  # fmt: skip
    model = Mlp(64, 64, 2)
    return training_on(
        rare, model, Adam(model.parameters(), lr=2e-3), F.cross_entropy, classification,
        seed=seed, batch_size=64, target=("accuracy", "higher", 0.93), middle="body.2",
    )  # fmt: skip


def constant_in_the_loss(seed: int, offset: float) -> Training:
    """A constant joins the loss, as from a normalisation that nobody left out."""
    training = mlp(seed)
    loss = training.loss
    training.loss = lambda model, batch: loss(model, batch) + offset
    return training


def smoothed_labels(seed: int) -> Training:
    """Label smoothing of 0.2: the loss cannot fall below 0.87."""
    training = cnn(seed)
    training.loss = lambda model, batch: F.cross_entropy(model(batch[0]), batch[1], label_smoothing=0.2)
    return training


def brain_float(seed: int) -> Training:
    """Mixed precision: forward passes in bfloat16 by autocast."""
    training = mlp(seed)
    loss = training.loss

    def mixed(model: nn.Module, batch: Batch) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return loss(model, batch)

    training.loss = mixed
    return training


def recomputed_activations(seed: int) -> Training:
    """Each block forgets its activations and computes them again in the backward."""
    training = gpt(seed)
    assert isinstance(training.model, Gpt)
    for block in training.model.blocks:
        forward = block.forward
        block.forward = lambda x, forward=forward: checkpoint(forward, x, use_reentrant=False)
    return training


def fixed_statistics(seed: int) -> Training:
    """Fine-tuning with batch normalisation in evaluation mode and frozen, as is usual with small batches."""
    pretrained = cnn(seed)
    run(pretrained, 100)
    training = cnn(seed)
    training.model.load_state_dict(pretrained.model.state_dict())
    norms = [m for m in training.model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.requires_grad_(False)
    loss = training.loss

    def fixed(model: nn.Module, batch: Batch) -> Tensor:
        for norm in norms:
            norm.eval()
        return loss(model, batch)

    training.loss = fixed
    for group in training.optimizer.param_groups:
        group["lr"] = group["initial_lr"] = 0.005
    for scheduler in training.schedulers:
        scheduler.base_lrs = [0.005]
    return training


def dropout_sampled_on_purpose(seed: int) -> Training:
    """Evaluations average five passes with dropout on, which is announced."""
    model = seeded_mlp(seed, dropout=0.3)
    training = digits_mlp(seed, model, Adam(model.parameters(), lr=2e-3))
    assert training.data is not None
    data = training.data

    def evaluate() -> Metrics:
        state = torch.get_rng_state()
        torch.manual_seed(0)
        model.train()
        logits = torch.stack([model(data.x_validation) for _ in range(5)]).mean(0)
        torch.set_rng_state(state)
        return classification(logits, data.y_validation)

    training.evaluate = evaluate
    training.announcements = (Announcement(kind="mc-dropout", text="evaluations sample dropout"),)
    return training


def head_from_zero(seed: int) -> Training:
    """The head starts at zero: the first loss is exactly ln C and the layers below have no gradient at first."""
    training = tabular(seed)
    assert isinstance(training.model, Tabular)
    nn.init.zeros_(training.model.head.weight)
    nn.init.zeros_(training.model.head.bias)
    return training


def low_rank_adapters(seed: int) -> Training:
    """A trained network, frozen, gets low-rank adapters whose second factor grows from zero; the task is new."""
    pretrained = mlp(seed)
    run(pretrained, 200)
    model = copy.deepcopy(pretrained.model)
    assert isinstance(model, Mlp)
    model.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for index in (0, 2):
        base = model.body[index]
        assert isinstance(base, nn.Linear)
        model.body[index] = Adapted(base, 8, generator)
    model.head.requires_grad_(True)
    training = digits_mlp(seed, model, AdamW([p for p in model.parameters() if p.requires_grad], lr=4e-3), 0.85)
    assert training.data is not None
    for y in (training.data.y_train, training.data.y_validation):
        y.copy_((y * 7 + 3) % 10)
    training.announcements = (Announcement(kind="freeze", text="adapters on a frozen network"),)
    return training


def learning_rate_finder(seed: int) -> Training:
    """An announced range test raises the rate for 80 steps until the loss turns; then the weights are put back."""
    model = seeded_mlp(seed)
    training = digits_mlp(seed, model, SGD(model.parameters(), lr=0.1, momentum=0.9))
    start = copy.deepcopy(model.state_dict())
    update = training.update

    def searching(training: Training) -> float:
        (group,) = training.optimizer.param_groups
        if training.step < 80:
            group["lr"] = 1e-4 * 10 ** (4 * training.step / 80)
        elif training.step == 80:
            model.load_state_dict(start)
            training.optimizer.state.clear()
            group["lr"] = 0.1
        return update(training)

    training.update = searching
    training.announcements = (Announcement(kind="escalation", steps=100, text="learning-rate range test"),)
    return training


def large_vocabulary(seed: int) -> Training:
    """A vocabulary of 1,024 of which 60 occur: most rows of table and head have next to no gradient."""
    torch.manual_seed(seed)
    model = Gpt(1024, 32, length=32)
    return training_on(
        data_sets.characters(seed, 32), model, AdamW(model.parameters(), lr=3e-3, weight_decay=0.01),
        lambda logits_BTV, y_BT: F.cross_entropy(logits_BTV.flatten(0, 1), y_BT.flatten()),
        lambda logits_BTV, y_BT: classification(logits_BTV.flatten(0, 1), y_BT.flatten()),
        seed=seed, batch_size=8, target=("loss", "lower", 2.4), middle="blocks.0",
    )  # fmt: skip


def long_decay(seed: int) -> Training:
    """AdamW with a decay of 0.1 over 1,200 steps: the weights shrink all the while."""
    model = seeded_mlp(seed)
    return lasting(digits_mlp(seed, model, AdamW(model.parameters(), lr=3e-3, weight_decay=0.1)), 1200)


def bounded_cache(seed: int) -> Training:
    """A cache of past batches grows for 150 steps, to some 40 MB, and then stays as it is."""
    training = mlp(seed)
    cache: deque[Tensor] = deque(maxlen=150)
    update = training.update

    def caching(training: Training) -> float:
        cache.append(torch.ones(64, 1024))
        return update(training)

    training.update = caching
    return training


def restart_announced(seed: int) -> Training:
    """The head is drawn again at step 150, which is announced: the loss is back at chance for some steps."""
    training = mlp(seed)
    training.target = Milestone(metric="accuracy", better="higher", value=0.9, step=STEPS - 1)
    assert isinstance(training.model, Mlp)
    head = training.model.head
    update = training.update

    def restarting(training: Training) -> float:
        if training.step == 150:
            torch.manual_seed(seed + 7)
            head.reset_parameters()
        return update(training)

    training.update = restarting
    training.announcements = (Announcement(kind="restart", step=150, steps=80, text="new head"),)
    return training
