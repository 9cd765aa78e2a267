/* glibc gives large blocks back to the system as soon as they are free, and every new one then
 * costs a page fault a page: more time than some of the work that they are for. */
#include <stdlib.h> /* defines __GLIBC__ */
#ifdef __GLIBC__
#include <malloc.h>
#endif

int keep_memory(void) {
#ifdef __GLIBC__
    mallopt(M_MMAP_THRESHOLD, 1 << 25);
    mallopt(M_TRIM_THRESHOLD, 1 << 28);
#endif
    return 0;
}
