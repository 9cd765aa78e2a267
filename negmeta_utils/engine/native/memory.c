/* A stack of memory for one call: large blocks are asked for, and cut into arrays. */
#include "common.h"
#include <setjmp.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#define CHUNK (1L << 24)
#define LINE 64 /* of a cache: arrays begin with one, so that no vector lies across two */
#define MOST 4096

struct Memory {
    Mark top; /* used: of the last chunk */
    char *chunks[MOST];
    long sizes[MOST];
    jmp_buf failed;
};

void *take(Memory *m, long bytes) {
    bytes = (bytes + LINE - 1) / LINE * LINE;
    if (m->top.chunks == 0 || m->top.used + bytes > m->sizes[m->top.chunks - 1]) {
        long size = bytes > CHUNK ? bytes : CHUNK;
        char *chunk = m->top.chunks < MOST ? aligned_alloc(LINE, size) : NULL;
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
    while (m->top.chunks > mark.chunks)
        free(m->chunks[--m->top.chunks]);
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

/* glibc gives large blocks back to the system as soon as they are free, and every new one then
 * costs a page fault a page: more time than some of the work that they are for. */
void keep_memory(void) {
#ifdef __GLIBC__
    mallopt(M_MMAP_THRESHOLD, 1 << 25);
    mallopt(M_TRIM_THRESHOLD, 1 << 28);
#endif
}
