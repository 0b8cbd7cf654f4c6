"""The step of bench_step in PyTorch: forward, backward, AdamW of the same shape with random weights.

    OMP_NUM_THREADS=1 python3 bench/bench_torch.py smollm-135m 2048 mla 3 [--layers N] [--compile]

fp32, scaled_dot_product_attention (causal, grouped heads), fused AdamW, OMP_NUM_THREADS threads.
One thread is timed by CPU time, several by the wall clock, as bench_step does. Prints one line with
the median step; with --compile the model goes through torch.compile first.
"""

import argparse
import os
import resource
import statistics
import time

import torch
import torch.nn.functional as F
from torch import nn

# layers, d_model, heads, kv heads, head width, d_ffn, vocabulary, tied head, rope pairs, d_kv
SHAPES = {
    "smollm-135m": (30, 576, 9, 3, 64, 1536, 49152, True, 4, 16),
    "smollm-360m": (32, 960, 15, 5, 64, 2560, 49152, True, 4, 16),
    "llama-2-7b-layer": (1, 4096, 32, 32, 128, 11008, 32000, False, 8, 32),
}


def rotate(x, cos, sin):
    """RoPE over the last dim: its first half is paired with its second half."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


class Attention(nn.Module):
    def __init__(self, d, heads, kv_heads, width, pairs, d_kv):
        super().__init__()
        self.heads, self.kv_heads, self.width, self.rope = heads, kv_heads, width, 2 * pairs
        self.latent = kv_heads * d_kv
        self.is_mla = d_kv > 0
        if self.is_mla:
            nope = width - self.rope
            self.inputs = nn.Linear(
                d, heads * width + kv_heads * self.rope + self.latent, bias=False
            )
            self.up = nn.Linear(self.latent, kv_heads * (nope + width), bias=False)
        else:
            self.inputs = nn.Linear(d, (heads + 2 * kv_heads) * width, bias=False)
        self.o = nn.Linear(heads * width, d, bias=False)

    def split(self, x, heads):
        return x.unflatten(-1, (heads, -1)).transpose(1, 2)

    def heads_of(self, x, cos, sin):
        H, K, r, nope = self.heads, self.kv_heads, self.rope, self.width - self.rope
        if not self.is_mla:
            sizes = (H * self.width, K * self.width, K * self.width)
            q, k, v = self.inputs(x).split(sizes, dim=-1)
            q, k = rotate(self.split(q, H), cos, sin), rotate(self.split(k, K), cos, sin)
            return q, k, self.split(v, K)
        sizes = (H * r, H * nope, K * r, self.latent)
        q_r, q_c, k_r, c = self.inputs(x).split(sizes, dim=-1)
        k_c, v = self.up(c).split((K * nope, K * self.width), dim=-1)
        q = torch.cat((rotate(self.split(q_r, H), cos, sin), self.split(q_c, H)), dim=-1)
        k = torch.cat((rotate(self.split(k_r, K), cos, sin), self.split(k_c, K)), dim=-1)
        return q, k, self.split(v, K)

    def forward(self, x, cos, sin):
        q, k, v = self.heads_of(x, cos, sin)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return self.o(out.transpose(1, 2).flatten(2))


class Layer(nn.Module):
    def __init__(self, d, ffn, **attention):
        super().__init__()
        self.attn_norm, self.ffn_norm = nn.RMSNorm(d, 1e-5), nn.RMSNorm(d, 1e-5)
        self.attention = Attention(d, **attention)
        self.gate_up, self.down = nn.Linear(d, 2 * ffn, bias=False), nn.Linear(ffn, d, bias=False)

    def forward(self, x, cos, sin):
        x = x + self.attention(self.attn_norm(x), cos, sin)
        gate, up = self.gate_up(self.ffn_norm(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)


class Model(nn.Module):
    def __init__(self, shape, T, is_mla, n_layers):
        super().__init__()
        layers, d, heads, kv_heads, width, ffn, vocabulary, tied, pairs, d_kv = shape
        pairs, d_kv = (pairs, d_kv) if is_mla else (width // 2, 0)
        self.embed = nn.Embedding(vocabulary, d)
        self.layers = nn.ModuleList(
            Layer(d, ffn, heads=heads, kv_heads=kv_heads, width=width, pairs=pairs, d_kv=d_kv)
            for _ in range(n_layers or layers)
        )
        self.norm, self.head = nn.RMSNorm(d, 1e-5), nn.Linear(d, vocabulary, bias=False)
        for parameter in self.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)
        if tied:
            self.head.weight = self.embed.weight
        angles = torch.arange(T)[:, None] * 1e4 ** (-2.0 * torch.arange(pairs) / width)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def forward(self, inputs, targets):
        x = self.embed(inputs)
        for layer in self.layers:
            x = layer(x, self.cos, self.sin)
        return F.cross_entropy(self.head(self.norm(x)).flatten(0, 1), targets.flatten())


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("T", type=int)
    parser.add_argument("attention", choices=("mha", "mla"))
    parser.add_argument("rounds", type=int)
    parser.add_argument("--layers", type=int, default=0, help="fewer than the model has")
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()
    n_threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    torch.set_num_threads(n_threads)
    torch.manual_seed(1)
    clock = time.process_time if n_threads == 1 else time.perf_counter
    shape = SHAPES[args.shape]
    model = Model(shape, args.T, args.attention == "mla", args.layers)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0, fused=True
    )
    step_model = torch.compile(model) if args.compile else model
    inputs, targets = torch.randint(0, shape[6], (2, 1, args.T))
    seconds = []
    for _ in range(args.rounds + 1):  # the first touches the memory, and compiles
        start = clock()
        step_model(inputs, targets).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        seconds.append(clock() - start)
    step = statistics.median(seconds[1:])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)
    print(
        f"torch {torch.__version__} {'compiled' if args.compile else 'eager'}, {n_threads} "
        f"threads: step {step:.3f} s, {args.T / step:.1f} tokens/s, peak {peak:.2f} GiB"
    )


if __name__ == "__main__":
    main()
