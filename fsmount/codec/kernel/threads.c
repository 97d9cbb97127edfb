#include "threads.h"

#if defined(_WIN32)

void run_parallel(int threads, size_t count, void (*work)(void *context, size_t index),
                  void *context)
{
    (void)threads;
    for (size_t i = 0; i < count; i++)
        work(context, i);
}

#else

#include <pthread.h>

/* `lock` protects `next`, the next index to hand out. The other fields do not change. */
typedef struct {
    pthread_mutex_t lock;
    size_t next, count;
    void (*work)(void *context, size_t index);
    void *context;
} Queue;

/* Body of each thread: takes the next index from the queue until none is left. */
static void *work_off(void *argument)
{
    Queue *queue = argument;
    for (;;) {
        pthread_mutex_lock(&queue->lock);
        size_t index = queue->next < queue->count ? queue->next++ : queue->count;
        pthread_mutex_unlock(&queue->lock);
        if (index == queue->count)
            return NULL;
        queue->work(queue->context, index);
    }
}

void run_parallel(int threads, size_t count, void (*work)(void *context, size_t index),
                  void *context)
{
    Queue queue = {PTHREAD_MUTEX_INITIALIZER, 0, count, work, context};
    pthread_t started[MOST_THREADS];
    int helpers = 0;
    /* The calling thread works too. If a thread cannot be started, the others do its share, so this
     * is not an error. */
    while (helpers < threads - 1 && helpers < MOST_THREADS && (size_t)helpers + 1 < count &&
           pthread_create(&started[helpers], NULL, work_off, &queue) == 0)
        helpers++;
    work_off(&queue);
    while (helpers)
        pthread_join(started[--helpers], NULL);
    pthread_mutex_destroy(&queue.lock);
}

#endif
