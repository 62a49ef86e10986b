// Counts what a program asks of the C heap and maps from the kernel, its libraries included. Included once.
#ifndef BENCH_SCALE_COUNTED_H
#define BENCH_SCALE_COUNTED_H

#include <stddef.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

struct Counts {
    long heap_calls, heap_bytes; // malloc and its kin
    long maps, map_bytes;        // mmap, mremap
};

static Counts counts;

static inline Counts operator-(const Counts &a, const Counts &b)
{
    return Counts{a.heap_calls - b.heap_calls, a.heap_bytes - b.heap_bytes, a.maps - b.maps,
                  a.map_bytes - b.map_bytes};
}

extern "C" {
void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);
void __libc_free(void *);

static void *asked(size_t size, void *result)
{
    counts.heap_calls++;
    counts.heap_bytes += (long)size;
    return result;
}

void *malloc(size_t size) { return asked(size, __libc_malloc(size)); }
void *calloc(size_t count, size_t size) { return asked(count * size, __libc_calloc(count, size)); }
void *realloc(void *old, size_t size) { return asked(size, __libc_realloc(old, size)); }
void *memalign(size_t alignment, size_t size) { return asked(size, __libc_memalign(alignment, size)); }
void *aligned_alloc(size_t alignment, size_t size) { return asked(size, __libc_memalign(alignment, size)); }
int posix_memalign(void **result, size_t alignment, size_t size)
{
    *result = asked(size, __libc_memalign(alignment, size));
    return *result ? 0 : 12;
}
void free(void *old) { __libc_free(old); }

void *mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset) noexcept
{
    counts.maps++;
    counts.map_bytes += (long)size;
    return (void *)syscall(SYS_mmap, at, size, protection, flags, fd, offset);
}
void *mmap64(void *at, size_t size, int protection, int flags, int fd, off_t offset) noexcept
{
    return mmap(at, size, protection, flags, fd, offset);
}
}

#endif
