/* A stack of memory for one call: large blocks are asked for, and cut into arrays. */
#include "common.h"
#include <pthread.h>
#include <setjmp.h>
#include <sys/mman.h>

#define CHUNK (1L << 24)
#define LINE 64 /* of a cache: arrays begin with one, so that no vector lies across two */
#define PAGE (1L << 21) /* a large page: fewer misses of the TLB */
#define MOST 4096

/* Blocks that the last calls gave back, for the next ones, of any thread. The system would have to
 * clear them page by page each time, which takes longer than some of the work that they are for.
 * Two tasks at 84x84 side by side take 0.8 GB. */
#define SPARE 64
#define SPARE_BYTES (1L << 30)
static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
static char *spare[SPARE];
static long spare_size[SPARE], spare_bytes;

struct Memory {
    Mark top; /* used: of the last chunk */
    char *chunks[MOST];
    long sizes[MOST];
    jmp_buf failed;
};

static char *block(long *size) {
    char *found = NULL;
    int best = -1; /* the smallest that is large enough */
    pthread_mutex_lock(&guard);
    for (int i = 0; i < SPARE; i++)
        if (spare[i] && spare_size[i] >= *size && (best < 0 || spare_size[i] < spare_size[best]))
            best = i;
    if (best >= 0) {
        found = spare[best];
        *size = spare_size[best];
        spare_bytes -= *size;
        spare[best] = NULL;
    }
    pthread_mutex_unlock(&guard);
    if (found)
        return found;
    *size = (*size + PAGE - 1) / PAGE * PAGE;
    found = aligned_alloc(PAGE, *size);
#ifdef MADV_HUGEPAGE
    if (found)
        madvise(found, *size, MADV_HUGEPAGE);
#endif
    return found;
}

static void give_back(char *chunk, long size) {
    pthread_mutex_lock(&guard);
    for (int i = 0; i < SPARE && chunk && spare_bytes + size <= SPARE_BYTES; i++)
        if (!spare[i]) {
            spare[i] = chunk;
            spare_size[i] = size;
            spare_bytes += size;
            chunk = NULL;
        }
    pthread_mutex_unlock(&guard);
    free(chunk);
}

void *take(Memory *m, long bytes) {
    bytes = (bytes + LINE - 1) / LINE * LINE;
    if (m->top.chunks == 0 || m->top.used + bytes > m->sizes[m->top.chunks - 1]) {
        long size = bytes > CHUNK ? bytes : CHUNK;
        char *chunk = m->top.chunks < MOST ? block(&size) : NULL;
        if (!chunk)
            longjmp(m->failed, 1);
        m->chunks[m->top.chunks] = chunk;
        m->sizes[m->top.chunks++] = size;
        m->top.used = 0;
    }
    m->top.used += bytes;
    return m->chunks[m->top.chunks - 1] + m->top.used - bytes;
}

Mark mark(const Memory *m) { return m->top; }

void release(Memory *m, Mark mark) {
    while (m->top.chunks > mark.chunks) {
        m->top.chunks--;
        give_back(m->chunks[m->top.chunks], m->sizes[m->top.chunks]);
    }
    m->top.used = mark.used;
}

/* Does the work and gives its memory back, with the processor's rounding as it is by default,
 * whatever the caller has set (`torch.set_flush_denormal`). Not 0 where there was no memory. */
int attempt(void (*work)(Memory *memory, void *arguments), void *arguments) {
    Memory memory;
    memory.top = (Mark){0};
#ifdef __x86_64__
    unsigned before = _mm_getcsr();
    _mm_setcsr(0x1f80);
#endif
    int failed = setjmp(memory.failed);
    if (!failed)
        work(&memory, arguments);
    release(&memory, (Mark){0});
#ifdef __x86_64__
    _mm_setcsr(before);
#endif
    return failed;
}
