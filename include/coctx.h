/* colib: the raw context switch, as libco's coctx.h. Coroutines do not use it. coctx_swap is declared by
 * the programs that call it, as with libco: extern "C" void coctx_swap(coctx_t *, coctx_t *). */

#ifndef COCTX_H
#define COCTX_H

/* Written from src/capi/coctx.rs by `make headers`: change it there. */

#include <stdlib.h>

/**
 * A raw context: the registers, then its stack, which the program supplies.
 *
 * ss_size: bytes at ss_sp. ss_sp: the lowest byte of the stack.
 */
typedef struct coctx_t {
    void *regs[14];
    size_t ss_size;
    char *ss_sp;
} coctx_t;

/**
 * What a raw context runs: gets the two arguments of coctx_make.
 */
typedef void *(*coctx_pfn_t)(void*, void*);

/**
 * The two arguments of a context (used by the original on i386 alone).
 */
typedef struct coctx_param_t {
    const void *s1;
    const void *s2;
} coctx_param_t;

/**
 * Fills a context with zeros. Returns 0; -1 for NULL, where the original crashes.
 *
 * Requires:
 * ctx is NULL or a coctx_t.
 */
int coctx_init(struct coctx_t *ctx);

/**
 * Prepares a context to call pfn(s, s1) on its stack. pfn must not return. Returns 0; -1 for NULL or a
 * context without a stack, where the original crashes.
 *
 * Requires:
 * ctx is NULL or a coctx_t whose ss_sp and ss_size describe a writable stack.
 */
int coctx_make(struct coctx_t *ctx, coctx_pfn_t pfn, const void *s, const void *s1);

#endif  /* COCTX_H */
