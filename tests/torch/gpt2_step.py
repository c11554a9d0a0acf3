"""GPT-2 in plain PyTorch, written from the formulas (Radford et al. 2019), beside ten steps that
tests/torch/step.c took: the loss, the gradient of every tensor, and the weights after AdamW.

    gpt2_step.py FOLDER            prints one line a comparison and "N passed, N failed"
"""
import math
import sys

import numpy
import torch

EPS, DECAY, CLIP = 1e-5, 0.1, 1.0


def read(folder):
    """What step.c told: the tensors' names and sizes, the batch, and the steps."""
    tensors, batch, steps, heads = [], [], [], 0
    with open(f"{folder}/told") as told:
        for line in told:
            word, *rest = line.split()
            if word == "tensor":
                tensors.append((rest[0], int(rest[1]), int(rest[2])))
            elif word == "heads":
                heads = int(rest[0])
            elif word == "sequence":
                pairs = [pair.split(":") for pair in rest]
                batch.append(([int(i) for i, _ in pairs], [float(w) for _, w in pairs]))
            elif word == "step":
                steps.append([float(x) for x in rest])
    return tensors, heads, batch, steps


def floats(folder, name, tensors, dtype):
    flat = torch.from_numpy(numpy.fromfile(f"{folder}/{name}", dtype="<f4")).to(dtype)
    out, at = {}, 0
    for title, rows, cols in tensors:
        t = flat[at:at + rows * cols].clone()
        out[title] = t.reshape(rows, cols) if rows > 1 else t
        at += rows * cols
    assert at == len(flat)
    return out


def layer_norm(x, weight, bias):
    mean = x.mean(-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(-1, keepdim=True)
    return (x - mean) / torch.sqrt(variance + 1e-5) * weight + bias


def gelu(x):
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3)))


def attention(x, p, at, heads):
    n, width = x.shape
    q, k, v = (x @ p[at + "attn_qkv.weight"].T + p[at + "attn_qkv.bias"]).split(width, -1)
    q, k, v = (t.reshape(n, heads, -1).transpose(0, 1) for t in (q, k, v))
    scores = q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])
    future = torch.ones(n, n, dtype=torch.bool).triu(1)
    mixed = scores.masked_fill(future, -math.inf).softmax(-1) @ v
    mixed = mixed.transpose(0, 1).reshape(n, width)
    return mixed @ p[at + "attn_output.weight"].T + p[at + "attn_output.bias"]


def logits(ids, p, heads):
    x = p["token_embd.weight"][ids] + p["position_embd.weight"][:len(ids)]
    layer = 0
    while f"blk.{layer}.attn_norm.weight" in p:
        at = f"blk.{layer}."
        x = x + attention(layer_norm(x, p[at + "attn_norm.weight"], p[at + "attn_norm.bias"]), p,
                          at, heads)
        h = layer_norm(x, p[at + "ffn_norm.weight"], p[at + "ffn_norm.bias"])
        h = gelu(h @ p[at + "ffn_up.weight"].T + p[at + "ffn_up.bias"])
        x = x + h @ p[at + "ffn_down.weight"].T + p[at + "ffn_down.bias"]
        layer += 1
    x = layer_norm(x, p["output_norm.weight"], p["output_norm.bias"])
    return x @ p["token_embd.weight"].T


def mean_loss(batch, p, heads, dtype):
    total, weights = 0, 0
    for ids, weight in batch:
        w = torch.tensor(weight, dtype=dtype)[1:]
        ids = torch.tensor(ids)
        each = torch.nn.functional.cross_entropy(logits(ids, p, heads)[:-1], ids[1:],
                                                 reduction="none")
        total, weights = total + (each * w).sum(), weights + w.sum()
    return total / weights


def worst(ours, theirs):
    """The tensor whose relative distance is the largest."""
    off = {name: float((ours[name].double() - t.double()).norm() / t.double().norm())
           for name, t in theirs.items()}
    name = max(off, key=off.get)
    return off[name], name


def compare(folder, dtype):
    tensors, heads, batch, steps = read(folder)
    p = floats(folder, "before", tensors, dtype)
    for t in p.values():
        t.requires_grad_(True)
    optimiser = torch.optim.AdamW(
        [{"params": [t for t in p.values() if t.dim() > 1], "weight_decay": DECAY},
         {"params": [t for t in p.values() if t.dim() == 1], "weight_decay": 0.0}],
        betas=(0.9, 0.95), eps=EPS)
    losses, norms = [], []
    for step, (loss, norm, rate) in enumerate(steps):
        optimiser.zero_grad()
        mine = mean_loss(batch, p, heads, dtype)
        mine.backward()
        if step == 0:
            gradient = worst(floats(folder, "gradient", tensors, dtype),
                             {name: t.grad for name, t in p.items()})
        size = math.sqrt(sum(float((t.grad.double() ** 2).sum()) for t in p.values()))
        for t in p.values():
            t.grad *= min(1.0, CLIP / size)
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.step()
        losses.append(abs(float(mine) - loss))
        norms.append(abs(size - norm) / norm)
    after = worst(floats(folder, "after", tensors, dtype), {n: t.detach() for n, t in p.items()})
    first, last = steps[0][0], steps[-1][0]
    kind = str(dtype).split(".")[-1]
    return [(f"{kind}: loss of the first step ({first:.4f})", losses[0], 1e-5),
            (f"{kind}: gradient, the worst of {len(p)} tensors ({gradient[1]})", gradient[0], 1e-4),
            (f"{kind}: norm of the gradient, ten steps", max(norms), 1e-5),
            (f"{kind}: loss, ten steps (the last {last:.4f})", max(losses), 1e-5),
            (f"{kind}: weights after ten steps of AdamW, the worst ({after[1]})", after[0], 1e-5)]


def main():
    passed = failed = 0
    for dtype in torch.float32, torch.float64:
        for what, off, most in compare(sys.argv[1], dtype):
            good = off <= most
            print(f"{'measured' if good else 'FAILED'}: {what}: {off:.1e}, at most {most:.0e}")
            passed, failed = passed + good, failed + (not good)
    print(f"{passed} passed, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
