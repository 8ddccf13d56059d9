"""Train a small causal character transformer on source files of the Python standard library.

Mistake on purpose: a detach meant for a printed statistic cuts the embeddings and lower blocks off the loss.
"""

import argparse
import math
import sysconfig
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

FILES = ("argparse.py", "dataclasses.py", "inspect.py", "subprocess.py", "tarfile.py", "typing.py")


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width, bias=False)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x):
        batch, length, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (batch, heads, length, width per head)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(attended.transpose(1, 2).reshape(batch, length, width))
        return x + self.mlp(self.norm2(x))


class CharGPT(nn.Module):
    def __init__(self, vocabulary, context, width=64, heads=4, depth=4):
        super().__init__()
        self.token = nn.Embedding(vocabulary, width)
        self.position = nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary)
        self.middle_rms = None
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.05)

    def forward(self, tokens):
        x = self.token(tokens) + self.position(torch.arange(tokens.shape[1]))
        for i, block in enumerate(self.blocks, start=1):
            x = block(x)
            if i == len(self.blocks) // 2:
                x = x.detach()
                self.middle_rms = x.pow(2).mean().sqrt()
        return self.head(self.norm(x))


def load_text():
    stdlib = Path(sysconfig.get_path("stdlib"))
    text = "\n".join((stdlib / name).read_text(encoding="utf-8") for name in FILES)
    characters = sorted(set(text))
    index = {character: i for i, character in enumerate(characters)}
    return torch.tensor([index[character] for character in text]), len(characters)


def get_batch(data, batch_size, context):
    starts = torch.randint(len(data) - context - 1, (batch_size,))
    windows = torch.stack([data[start : start + context + 1] for start in starts])
    return windows[:, :-1], windows[:, 1:]


def loss_of(model, inputs, targets):
    return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())


@torch.no_grad()
def evaluate(model, data, context):
    model.eval()
    windows = data[: 64 * (context + 1)].view(64, context + 1)
    loss = loss_of(model, windows[:, :-1], windows[:, 1:]).item()
    model.train()
    return loss


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--context", type=int, default=64)
    args = parser.parse_args()
    torch.manual_seed(args.seed)

    data, vocabulary = load_text()
    split = int(0.9 * len(data))
    model = CharGPT(vocabulary, args.context)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, betas=(0.9, 0.95), weight_decay=0.1)
    warmup = max(1, args.steps // 20)

    for step in range(1, args.steps + 1):
        progress = max(0.0, (step - warmup) / max(1, args.steps - warmup))
        scale = min(1.0, step / warmup) * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * progress)))
        for group in optimizer.param_groups:
            group["lr"] = args.lr * scale
        loss = loss_of(model, *get_batch(data[:split], batch_size=32, context=args.context))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 100 == 0 or step == args.steps:
            val_loss = evaluate(model, data[split:], args.context)
            rms = model.middle_rms.item()
            print(f"step {step:4d}  train loss {loss.item():.4f}  val loss {val_loss:.4f}  middle rms {rms:.2f}")
    print(f"final validation loss {val_loss:.4f}")


if __name__ == "__main__":
    main()
