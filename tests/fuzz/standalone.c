/* Calls a fuzz target with random inputs, for machines without libFuzzer: PROGRAM [seconds [seed]].
 *
 * The file PROGRAM.last has the seed of the current input. After a crash, PROGRAM 1 SEED begins
 * with that input again. */
#include <stdio.h>
#include <time.h>

#include "../../fsmount/codec/kernel/common.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

static u64 random_state;
static u32 random32(void)
{
    random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (u32)(random_state >> 33);
}

static void one(u64 seed)
{
    static u8 data[6000];
    random_state = seed;
    for (int i = 0; i < 4; i++)
        random32();
    u32 kind = random32() % 8;
    u32 size = random32() % (kind == 0 ? 30 : kind < 5 ? 500 : (u32)sizeof data);
    for (u32 i = 0; i < size; i++)
        data[i] = (u8)random32();
    u8 *exact = malloc(size + !size);
    memcpy(exact, data, size);
    LLVMFuzzerTestOneInput(exact, size);
    free(exact);
}

int main(int argc, char **argv)
{
    double seconds = argc > 1 ? atof(argv[1]) : 10;
    u64 first = argc > 2 ? strtoull(argv[2], NULL, 0) : (u64)time(NULL), seed = first;
    time_t start = time(NULL), told = start;
    char last_name[1000];
    snprintf(last_name, sizeof last_name, "%s.last", argv[0]);
    LLVMFuzzerInitialize(&argc, &argv);
    for (; difftime(time(NULL), start) < seconds; seed++) {
        FILE *last = fopen(last_name, "w");
        if (last) {
            fprintf(last, "%llu\n", (unsigned long long)seed);
            fclose(last);
        }
        one(seed);
        if (difftime(time(NULL), told) >= 60) {
            told = time(NULL);
            printf("%llu inputs, %.0f s, seed %llu, nothing found\n",
                   (unsigned long long)(seed - first), difftime(told, start),
                   (unsigned long long)first);
            fflush(stdout);
        }
    }
    printf("done: %llu inputs, %.0f s, seed %llu, nothing found\n",
           (unsigned long long)(seed - first), seconds, (unsigned long long)first);
    return 0;
}
