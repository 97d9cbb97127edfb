/* Work on several threads: the calls `work(context, 0)` to `work(context, count - 1)`, in any
 * order, at most `threads` at once. Returns when all are done. */
#ifndef FSMOUNT_KERNEL_THREADS_H
#define FSMOUNT_KERNEL_THREADS_H

#include <stddef.h>

enum { MOST_THREADS = 64 };

void run_parallel(int threads, size_t count, void (*work)(void *context, size_t index),
                  void *context);

#endif
