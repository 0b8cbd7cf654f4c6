// A symmetric band matrix made tridiagonal, in single precision, by sweeps of reflectors that are
// kept for the way back.
//
//     Chase chase;
//     chase_place(&chase, &arena, n);              // measures; then again to place (base/arena.h)
//     ... chase.band = the band ...
//     chase_band(&chase, diagonal, below);
//     v = chase_reflector(&chase, sweep, hop, &tau);
//
// B = Q T Q^T, where Q is the product of I - tau v v^T for all sweeps in their order, and of a
// sweep for all its hops. The reflector of a hop acts on rows sweep + 1 + hop CHASE_BAND and below.
#ifndef MHA2MLA_MODEL_CONVERT_CHASE_H
#define MHA2MLA_MODEL_CONVERT_CHASE_H

#include "base/arena.h"

enum { CHASE_BAND = 64 }; // diagonals below the main one; twice as many are twice the work

// Working memory, placed in an arena.
typedef struct Chase {
    int n;
    float *band;       // room for [n, 2 CHASE_BAND]
    float *reflectors; // of CHASE_BAND floats
    float *taus;       // one for each of those
} Chase;

void chase_place(Chase *x, Arena *arena, int n);

// diagonal [n], below [n], of which the last is no number of T. The band as LAPACK has it: column j
// from its diagonal down in band [n, CHASE_BAND + 1]; destroyed.
void chase_band(Chase *x, double *diagonal, double *below);

// v [CHASE_BAND], its first one is 1 and those beyond the matrix are 0; *tau points to tau, the
// next sweep's of the same hop behind it.
float *chase_reflector(const Chase *x, int sweep, int hop, float **tau);

#endif
