"""torch.linalg.svd of a matrix of random numbers, as bench_convert's `factorize` has it.

    OMP_NUM_THREADS=1 python3 bench/convert_peer.py M N [float32|float64]

Prints its seconds: CPU time on one thread, wall clock on several.
"""
import os
import sys
import time

import torch


def main():
    m, n = int(sys.argv[1]), int(sys.argv[2])
    dtype = getattr(torch, sys.argv[3] if len(sys.argv) > 3 else "float32")
    threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    torch.set_num_threads(threads)
    clock = time.process_time if threads == 1 else time.perf_counter
    matrix = 0.02 * torch.randn(m, n, generator=torch.Generator().manual_seed(1), dtype=dtype)
    start = clock()
    torch.linalg.svd(matrix, full_matrices=False)
    print("%.2f s, all of %d x %d" % (clock() - start, m, n))


main()
