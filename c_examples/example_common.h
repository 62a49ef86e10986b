/*
 * What all example programs share: clear errors for bad input, checked creation of coroutines, a loop that ends.
 *
 * Include it first: it asks the C library for its POSIX and Linux declarations, which -std=c11 alone leaves out.
 */
#ifndef EXAMPLE_COMMON_H
#define EXAMPLE_COMMON_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "co_routine.h"

#define EX_COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

/* Says on standard error what is wrong with the input and how to call the program, and ends it with status 1. */
__attribute__((noreturn, format(printf, 2, 3))) static inline void ex_bad_input(const char *usage, const char *format, ...)
{
    va_list arguments;

    fprintf(stderr, "%s: ", program_invocation_short_name);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, "\nusage: %s%s%s\n", program_invocation_short_name, *usage == '\0' ? "" : " ", usage);
    exit(EXIT_FAILURE);
}

/* Ends the program with status 1 after a call that must not fail did: `what` names it, errno tells why. */
__attribute__((noreturn)) static inline void ex_die(const char *what)
{
    fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, strerror(errno));
    exit(EXIT_FAILURE);
}

/* Reads the argument called `name`: a whole decimal number from min to max, nothing before or after it. */
static inline long ex_number(const char *usage, const char *name, const char *text, long min, long max)
{
    char *end = NULL;
    long value;

    errno = 0;
    value = strtol(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0 || value < min || value > max || text[0] == ' ')
        ex_bad_input(usage, "%s must be a number from %ld to %ld, not '%s'", name, min, max, text);
    return value;
}

/* Makes an IPv4 address of `ip` ("*" means every local address) and `port`. */
static inline struct sockaddr_in ex_address(const char *usage, const char *ip, long port)
{
    struct sockaddr_in address;

    memset(&address, 0, sizeof(address));
    address.sin_family = AF_INET;
    address.sin_port = htons((in_port_t)port);
    if (inet_pton(AF_INET, strcmp(ip, "*") == 0 ? "0.0.0.0" : ip, &address.sin_addr) != 1)
        ex_bad_input(usage, "'%s' is not an IPv4 address", ip);
    return address;
}

/* Creates a coroutine with a private stack of the default size and runs it up to its first wait. */
static inline stCoRoutine_t *ex_start(void *(*routine)(void *), void *argument)
{
    stCoRoutine_t *co = NULL;
    int error = co_create(&co, NULL, routine, argument);

    if (error != 0) {
        errno = -error;
        ex_die("co_create");
    }
    co_resume(co);
    return co;
}

/* The loop's callback of ex_run_until_zero: -1 tells co_eventloop to return. */
static inline int ex_is_zero(void *count)
{
    return *(int *)count == 0 ? -1 : 0;
}

/* Runs the thread's event loop until *count, which the coroutines count down as they end, is zero. */
static inline void ex_run_until_zero(int *count)
{
    if (*count != 0)
        co_eventloop(co_get_epoll_ct(), ex_is_zero, count);
}

#endif
