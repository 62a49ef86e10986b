/*
 * The library's header and what it needs, as C++, which every library with libco's headers can be called from.
 */
#ifndef BENCH_CO_H
#define BENCH_CO_H

#include "server.h"

#include "co_routine.h"

#include <stdint.h>

#ifdef BENCH_DECLARE_CO_ACCEPT /* the header of the original does not declare it */
int co_accept(int fd, struct sockaddr *addr, socklen_t *len);
#endif

#endif
