/* Runs independent pieces of work on several threads. */
#ifndef FSMOUNT_KERNEL_THREADS_H
#define FSMOUNT_KERNEL_THREADS_H

#include <stddef.h>

enum { MOST_THREADS = 64 };

/* Makes the calls `work(context, 0)` to `work(context, count - 1)` in any order, at most `threads`
 * (1 to MOST_THREADS) at the same time. Returns when all calls have returned. The calling thread
 * makes some of the calls. If no further thread can be started, it makes all of them; so this
 * function cannot fail. On Windows the calling thread makes all calls in order. */
void run_parallel(int threads, size_t count, void (*work)(void *context, size_t index),
                  void *context);

#endif
