"""peer_torch.py LAYERS D VOCAB BATCH T: tokens a second of a PyTorch training step (forward,
backward, AdamW) of a GPT of that shape in f32: learned positions, tied head, GELU, MLP of 4 D,
heads of 32 or 64. The median of five steps after two. OMP_NUM_THREADS sets the threads."""
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F

L, D, V, B, T = map(int, sys.argv[1:6])
H = max(1, D // (32 if D <= 128 else 64))
torch.manual_seed(1)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.n1, self.n2 = nn.LayerNorm(D), nn.LayerNorm(D)
        self.qkv, self.out = nn.Linear(D, 3 * D), nn.Linear(D, D)
        self.up, self.down = nn.Linear(D, 4 * D), nn.Linear(4 * D, D)

    def forward(self, x, mask):
        q, k, v = (t.view(B, T, H, D // H).transpose(1, 2) for t in self.qkv(self.n1(x)).chunk(3, -1))
        a = (q @ k.transpose(-2, -1)) * (D // H) ** -0.5 + mask
        x = x + self.out((a.softmax(-1) @ v).transpose(1, 2).reshape(B, T, D))
        return x + self.down(F.gelu(self.up(self.n2(x)), approximate="tanh"))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.places = nn.Embedding(V, D), nn.Embedding(T, D)
        self.blocks, self.norm = nn.ModuleList(Block() for _ in range(L)), nn.LayerNorm(D)

    def forward(self, ids):
        mask = torch.full((T, T), float("-inf")).triu(1)
        x = self.words(ids) + self.places.weight
        for b in self.blocks:
            x = b(x, mask)
        return self.norm(x) @ self.words.weight.T


model = Model()
optim = torch.optim.AdamW(model.parameters(), lr=1e-4)
ids = torch.randint(V, (B, T + 1))
times = []
for _ in range(7):
    start = time.perf_counter()
    loss = F.cross_entropy(model(ids[:, :-1]).reshape(-1, V), ids[:, 1:].reshape(-1))
    optim.zero_grad(set_to_none=True)
    loss.backward()
    optim.step()
    times.append(time.perf_counter() - start)
print("%.1f" % (B * T / sorted(times[2:])[2]))
