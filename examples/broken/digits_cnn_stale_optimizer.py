"""Train a small convolutional network with batch norm on scikit-learn's 8x8 digits: SGD with momentum, cosine schedule.

Mistake on purpose: the head is replaced after the optimizer was built, so the new head never learns.
"""

import argparse
import math

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def conv_block(channels_in, channels_out):
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
    )


class SmallCNN(nn.Module):
    def __init__(self, num_classes=100):
        super().__init__()
        self.backbone = nn.Sequential(
            conv_block(1, 16),
            conv_block(16, 32),
            nn.MaxPool2d(2),
            conv_block(32, 32),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.head = nn.Linear(32, num_classes)

    def forward(self, images):
        return self.head(self.backbone(images))


def load_data():
    digits = load_digits()
    images = torch.tensor(digits.images / 16.0, dtype=torch.float32).unsqueeze(1)
    labels = torch.tensor(digits.target, dtype=torch.long)
    train_x, val_x, train_y, val_y = train_test_split(images, labels, test_size=0.2, random_state=0, stratify=labels)
    return TensorDataset(train_x, train_y), TensorDataset(val_x, val_y)


def accuracy_of(model, loader):
    model.eval()
    correct = 0
    with torch.no_grad():
        for images, labels in loader:
            correct += (model(images).argmax(dim=1) == labels).sum().item()
    return correct / len(loader.dataset)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=0.05)
    args = parser.parse_args()
    torch.manual_seed(args.seed)

    train_set, val_set = load_data()
    train_loader = DataLoader(train_set, batch_size=args.batch_size, shuffle=True, drop_last=True)
    val_loader = DataLoader(val_set, batch_size=256)

    model = SmallCNN()
    optimizer = torch.optim.SGD(model.parameters(), lr=args.lr, momentum=0.9, weight_decay=5e-4)
    model.head = nn.Linear(model.head.in_features, 10)  # one output per digit
    total_steps = args.epochs * len(train_loader)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * min(1.0, step / total_steps)))
    )

    for epoch in range(1, args.epochs + 1):
        model.train()
        losses = []
        for images, labels in train_loader:
            loss = F.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            losses.append(loss.item())
        accuracy = accuracy_of(model, val_loader)
        print(f"epoch {epoch:3d}  train loss {sum(losses) / len(losses):.4f}  val accuracy {accuracy:.4f}")
    print(f"final validation accuracy {accuracy:.4f}")


if __name__ == "__main__":
    main()
