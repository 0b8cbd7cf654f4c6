// Which windows a step of local distillation reads: a pure function of seed and step, the same for
// any number of ranks. Window i belongs to slot i mod B of a batch of B windows; a step takes one
// window from every slot, each slot's in a new random order when all of them have been read. Rank r
// of N computes the slots r, r + N, ... and holds their windows, which never change hands; ranks
// beyond B have none.
//
//     const WindowShare share = window_share(n_windows, rank, n_ranks);
//     ... for (int own = 0; own < share.n_own; own++) window_of(&share, own) ...
//     const int window = distill_order(key, step, slot, share.batch, n_windows);
//     ... window_place(&share, window) if slot % n_ranks == rank ...
#ifndef MHA2MLA_TRAIN_DISTILL_DISTILL_ORDER_H
#define MHA2MLA_TRAIN_DISTILL_DISTILL_ORDER_H

#include <stdint.h>

enum { DISTILL_BATCH = 8 }; // windows of a step

// The windows of a rank.
typedef struct WindowShare {
    int batch; // B: fewer than DISTILL_BATCH if there are fewer windows
    int rank, n_ranks;
    int n_slots; // of this rank
    int n_own;   // its windows
} WindowShare;

WindowShare window_share(int n_windows, int rank, int n_ranks);

// Which window is the own-th of the rank, and which of its windows this one of its slots is.
int window_of(const WindowShare *share, int own);
int window_place(const WindowShare *share, int window);

// The rank that holds it.
int window_owner(const WindowShare *share, int window);

// Steps count from 1.
int distill_order(uint64_t key, int step, int slot, int batch, int n_windows);

#endif
