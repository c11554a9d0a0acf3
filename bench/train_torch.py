"""A training step of GPT-2 in PyTorch, the peer of bench/train_step.c: f32, AdamW, random ids.

    train_torch.py LAYERS WIDTH HEADS VOCABULARY BATCH LENGTH STEPS [THREADS]
"""
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    def __init__(self, width, heads, length):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.register_buffer("future", torch.ones(length, length, dtype=torch.bool).triu(1))

    def forward(self, x):
        b, n, width = x.shape
        q, k, v = (t.view(b, n, self.heads, -1).transpose(1, 2)
                   for t in self.qkv(self.norm1(x)).split(width, -1))
        scores = (q @ k.transpose(2, 3)) * (width // self.heads) ** -0.5
        p = scores.masked_fill(self.future, -torch.inf).softmax(-1)
        x = x + self.out((p @ v).transpose(1, 2).reshape(b, n, width))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class GPT(nn.Module):
    def __init__(self, layers, width, heads, vocabulary, length):
        super().__init__()
        self.embd, self.pos = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.blocks = nn.ModuleList(Block(width, heads, length) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, ids):
        x = self.embd(ids) + self.pos.weight[:ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.norm(x) @ self.embd.weight.T


def main():
    layers, width, heads, vocabulary, batch, length, steps = map(int, sys.argv[1:8])
    torch.set_num_threads(int(sys.argv[8]) if len(sys.argv) > 8 else 1)
    torch.manual_seed(1)
    model = GPT(layers, width, heads, vocabulary, length)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)
    wall, cpu = [], []
    for step in range(steps + 2):
        ids = torch.randint(vocabulary, (batch, length + 1))
        at_wall, at_cpu = time.monotonic(), time.process_time()
        optimiser.zero_grad(set_to_none=True)
        loss = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if step >= 2:
            wall.append(time.monotonic() - at_wall)
            cpu.append(time.process_time() - at_cpu)
    for what, s in ("wall", sorted(wall)), ("cpu", sorted(cpu)):
        print(f"{what:4}  best {batch * length / s[0]:8.1f} tokens/s"
              f"  median {batch * length / s[len(s) // 2]:8.1f}")


if __name__ == "__main__":
    main()
