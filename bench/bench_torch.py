"""The step of bench_step in PyTorch: forward, backward, clipping and AdamW of the same shape with
random weights; under torchrun with gradients averaged over the processes by DistributedDataParallel
(gloo).

    OMP_NUM_THREADS=1 python3 bench/bench_torch.py smollm-135m 2048 mla 3 --compile
    OMP_NUM_THREADS=1 torchrun --standalone --nproc-per-node 2 bench/bench_torch.py smollm-135m 2048 mla 3
    OMP_NUM_THREADS=2 python3 bench/bench_torch.py smollm-135m 2048 mla 3 --compile --dtype bfloat16
    OMP_NUM_THREADS=1 python3 bench/bench_torch.py smollm-135m 2048 mla 9 --choose-adamw

scaled_dot_product_attention (causal, grouped heads), OMP_NUM_THREADS threads per process, each with
a sequence of its own. Parameters, gradients and moments are float32; with --dtype bfloat16 forward
and loss run under torch.autocast, so that products take bfloat16 (DistributedDataParallel sends
float32). Prints one line with the median step, the tokens/s of all processes and the sum of their
peaks; with --choose-adamw which of PyTorch's two fast AdamW is the faster here.
"""

import argparse
import os
import resource
import statistics
import sys
import time

import torch
import torch.distributed as dist
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


def make_adamw(parameters, kind):
    return torch.optim.AdamW(
        parameters, lr=1e-4, betas=(0.9, 0.95), weight_decay=0, fused=kind == "fused", foreach=kind == "foreach"
    )


def choose_adamw(model, rounds):
    """Seconds of an update by each, in alternation."""
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 1e-3)
    kinds = {kind: (make_adamw(model.parameters(), kind), []) for kind in ("fused", "foreach")}
    for _ in range(rounds + 1):
        for optimizer, seconds in kinds.values():
            start = time.perf_counter()
            optimizer.step()
            seconds.append(time.perf_counter() - start)
    medians = {kind: statistics.median(seconds[1:]) for kind, (_, seconds) in kinds.items()}
    print(", ".join(f"{kind} {median:.3f} s" for kind, median in medians.items()), end=": ")
    print(min(medians, key=medians.get))


def check_memory(model, args, processes):
    """Ends in one line where even parameters, gradients, moments and logits would not fit."""
    numbers = 4 * sum(p.numel() for p in model.parameters()) + 3 * args.T * SHAPES[args.shape][6]
    needed = 4 * numbers * processes
    with open("/proc/meminfo") as file:
        available = next(int(line.split()[1]) for line in file if line.startswith("MemAvailable:")) << 10
    if needed > available:
        sys.exit(
            f"bench_torch: error: {args.shape} T {args.T} needs more than {needed / 2**30:.1f} GiB in {processes} "
            f"processes, {available / 2**30:.1f} GiB are available"
        )


def time_steps(model, optimizer, parameters, inputs, targets, args, clock):
    seconds = []
    for _ in range(args.rounds + 1):  # the first touches the memory, and compiles
        start = clock()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.dtype == "bfloat16"):
            loss = model(inputs, targets)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(clock() - start)
    return statistics.median(seconds[1:])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("T", type=int)
    parser.add_argument("attention", choices=("mha", "mla"))
    parser.add_argument("rounds", type=int)
    parser.add_argument("--layers", type=int, default=0, help="replaces the model's number")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--adamw", choices=("fused", "foreach"), default="fused")
    parser.add_argument("--choose-adamw", action="store_true")
    parser.add_argument("--clock", choices=("cpu", "wall"), default="wall")
    args = parser.parse_args()
    n_threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    processes, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    torch.set_num_threads(n_threads)
    torch.manual_seed(1)
    shape = SHAPES[args.shape]
    model = Model(shape, args.T, args.attention == "mla", args.layers)
    if args.choose_adamw:
        choose_adamw(model, args.rounds)
        return
    check_memory(model, args, processes)
    parameters = list(model.parameters())
    if processes > 1:
        dist.init_process_group("gloo")
        model = nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)
    optimizer = make_adamw(parameters, args.adamw)
    torch.manual_seed(2 + rank)
    inputs, targets = torch.randint(0, shape[6], (2, 1, args.T))
    clock = time.process_time if args.clock == "cpu" else time.perf_counter
    step_model = torch.compile(model) if args.compile else model
    step = time_steps(step_model, optimizer, parameters, inputs, targets, args, clock)
    figures = torch.tensor([step / processes, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)])
    if processes > 1:
        dist.all_reduce(figures)
        dist.destroy_process_group()
    step, peak = figures.tolist()
    if rank == 0:
        print(
            f"torch {torch.__version__} {'compiled' if args.compile else 'eager'} {args.dtype}, {processes} processes x "
            f"{n_threads} threads, {args.adamw} AdamW: step {step:.3f} s, {processes * args.T / step:.1f} tokens/s, "
            f"peak {peak:.2f} GiB"
        )


if __name__ == "__main__":
    main()
