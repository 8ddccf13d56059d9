"""The same plain loop with the two lines of a Guard, and one more for its validation accuracy."""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

from trimtab import Guard

torch.manual_seed(0)
digits = load_digits()
images = torch.tensor(digits.data / 16, dtype=torch.float32)
train_set, val_set = random_split(TensorDataset(images, torch.tensor(digits.target)), [0.8, 0.2])
loader = DataLoader(train_set, batch_size=64, shuffle=True)

model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
guard = Guard(None, model, optimizer, name="two-lines")

for epoch in range(1, 11):
    for batch in loader:
        inputs, labels = batch
        loss = F.cross_entropy(model(inputs), labels)
        loss.backward()
        if guard.allows(batch=batch):
            optimizer.step()
        optimizer.zero_grad()

    with torch.no_grad():
        inputs, labels = next(iter(DataLoader(val_set, batch_size=len(val_set))))
        accuracy = (model(inputs).argmax(dim=1) == labels).float().mean().item()
    guard.record(accuracy=accuracy, split="validation", better="higher")
    print(f"epoch {epoch:2d}  train loss {loss.item():.4f}  val accuracy {accuracy:.4f}")
