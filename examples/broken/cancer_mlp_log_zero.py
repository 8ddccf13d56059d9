"""Train a small network on the breast cancer data (30 standardised features) with binary cross-entropy.

Mistake on purpose: the loss takes the logarithm of a sigmoid, which rounds to exactly 1 once a logit passes 17.
"""

import argparse

import torch
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def load_data():
    features, labels = load_breast_cancer(return_X_y=True)
    train_x, val_x, train_y, val_y = train_test_split(features, labels, test_size=0.25, random_state=0, stratify=labels)
    scaler = StandardScaler().fit(train_x)
    tensors = [
        (torch.tensor(scaler.transform(x), dtype=torch.float32), torch.tensor(y, dtype=torch.float32))
        for x, y in ((train_x, train_y), (val_x, val_y))
    ]
    return [TensorDataset(x, y) for x, y in tensors]


class Classifier(nn.Module):
    def __init__(self, features, hidden):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, x):
        return self.layers(x).squeeze(-1)


def binary_cross_entropy(logits, labels):
    probability = torch.sigmoid(logits)
    return -(labels * torch.log(probability) + (1 - labels) * torch.log(1 - probability)).mean()


def evaluate(model, dataset):
    features, labels = dataset.tensors
    model.eval()
    with torch.no_grad():
        predicted = (model(features) > 0).float()
    return (predicted == labels).float().mean().item()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--hidden", type=int, default=32)
    args = parser.parse_args()
    torch.manual_seed(args.seed)

    train_set, val_set = load_data()
    loader = DataLoader(train_set, batch_size=32, shuffle=True)
    model = Classifier(features=30, hidden=args.hidden)
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)

    for epoch in range(1, args.epochs + 1):
        model.train()
        total = 0.0
        for features, labels in loader:
            optimizer.zero_grad(set_to_none=True)
            loss = binary_cross_entropy(model(features), labels)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(labels)
        accuracy = evaluate(model, val_set)
        if epoch % 5 == 0 or epoch == args.epochs:
            print(f"epoch {epoch:3d}  train loss {total / len(train_set):.4f}  val accuracy {accuracy:.4f}")
    print(f"final validation accuracy {accuracy:.4f}")


if __name__ == "__main__":
    main()
