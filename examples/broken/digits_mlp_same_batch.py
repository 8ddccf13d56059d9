"""Train a multilayer perceptron on scikit-learn's 8x8 digits with Adam.

Mistake on purpose: every step takes the first batch of a loader that does not shuffle.
"""

import argparse

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def load_data(batch_size):
    digits = load_digits()
    images = torch.tensor(digits.data / 16.0, dtype=torch.float32)
    labels = torch.tensor(digits.target, dtype=torch.long)
    train_x, val_x, train_y, val_y = train_test_split(images, labels, test_size=0.2, random_state=0, stratify=labels)
    train_loader = DataLoader(TensorDataset(train_x, train_y), batch_size=batch_size, shuffle=False)
    val_loader = DataLoader(TensorDataset(val_x, val_y), batch_size=256)
    return train_loader, val_loader


def build_model():
    return nn.Sequential(
        nn.Linear(64, 128),
        nn.ReLU(),
        nn.Linear(128, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


@torch.no_grad()
def evaluate(model, loader, criterion):
    model.eval()
    loss_sum, correct, count = 0.0, 0, 0
    for images, labels in loader:
        logits = model(images)
        loss_sum += criterion(logits, labels).item() * len(labels)
        correct += (logits.argmax(dim=1) == labels).sum().item()
        count += len(labels)
    return loss_sum / count, correct / count


def train_one_epoch(model, loader, criterion, optimizer):
    model.train()
    loss_sum, count = 0.0, 0
    for _ in range(len(loader)):
        images, labels = next(iter(loader))
        optimizer.zero_grad()
        loss = criterion(model(images), labels)
        loss.backward()
        optimizer.step()
        loss_sum += loss.item() * len(labels)
        count += len(labels)
    return loss_sum / count


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1e-3)
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    train_loader, val_loader = load_data(args.batch_size)
    model = build_model()
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)

    for epoch in range(1, args.epochs + 1):
        train_loss = train_one_epoch(model, train_loader, criterion, optimizer)
        val_loss, accuracy = evaluate(model, val_loader, criterion)
        print(f"epoch {epoch:3d}  train loss {train_loss:.4f}  val loss {val_loss:.4f}  val accuracy {accuracy:.4f}")
    print(f"final validation accuracy {accuracy:.4f}")


if __name__ == "__main__":
    main()
