#include "model/kernels/gemm_buffer.h"

#include "base/status.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { HUGE_PAGE = 2 << 20 }; // bytes

int64_t gemm_cached_bytes(void)
{
    const long cache_bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
    return (cache_bytes > 0 ? cache_bytes : 1 << 19) / 3 * 2;
}

int64_t gemm_buffer_size(int64_t thread_bytes, int n_threads)
{
    return (thread_bytes * n_threads + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
}

char *gemm_buffer_find(int64_t thread_bytes, int n_threads)
{
    static char *buffers;
    static int64_t placed_bytes;
    const int64_t size_bytes = gemm_buffer_size(thread_bytes, n_threads);
    if (size_bytes > placed_bytes) {
        free(buffers);
        buffers = aligned_alloc(HUGE_PAGE, (size_t)size_bytes);
        CHECK(buffers != NULL, "no memory for products' buffers on %d threads", n_threads);
        // A packed block spans 200 pages of 4 KiB, more than the first TLB holds: huge pages, where
        // the kernel grants them.
        madvise(buffers, (size_t)size_bytes, MADV_HUGEPAGE);
        placed_bytes = size_bytes;
    }
    return buffers;
}
