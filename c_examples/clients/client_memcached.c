/*
 * libmemcached: coroutines of one thread store and fetch values, half of them on a second server. That one may hang: the
 * others do not notice.
 *
 *   cc -std=c11 -Iinclude c_examples/clients/client_memcached.c lib/libcolib.a -lmemcached -lpthread -ldl -lm \
 *       -o client_memcached
 *   ./client_memcached 127.0.0.1 11211 11212
 *
 * Arguments: IP PORT SECOND_PORT [COROUTINES]
 *
 * The first server is also sent values by UDP, for which libmemcached calls sendmsg: that is an added hook, and
 * co_set_hooks switches it on.
 *
 * Prints
 *   by UDP: 50 values right
 *   first server: 50 coroutines, 1000 values right
 *   second server: 50 coroutines, 1000 values right
 */
#include "client_common.h"

#include <poll.h>

#include <libmemcached/memcached.h>

static const char USAGE[] = "IP PORT SECOND_PORT [COROUTINES]";

enum { VALUES = 20, LONGEST = 500000 };

static const char *server_ip;
static long ports[2], coroutine_count = 100;
static long values_right[2], coroutines_done[2], datagrams_right;

/* The first value is more than a socket takes at once: sending it waits, too. */
static size_t length_of(int round)
{
    return round == 0 ? LONGEST : (size_t)(10 + round * 100);
}

static memcached_st *connected(int which, int udp)
{
    memcached_st *memcached = memcached_create(NULL);

    if (memcached == NULL ||
        memcached_behavior_set(memcached, MEMCACHED_BEHAVIOR_USE_UDP, (uint64_t)udp) != MEMCACHED_SUCCESS ||
        memcached_server_add(memcached, server_ip, (in_port_t)ports[which]) != MEMCACHED_SUCCESS)
        cl_die("cannot make a connection object");
    if (!udp)
        memcached_behavior_set(memcached, MEMCACHED_BEHAVIOR_BINARY_PROTOCOL, (uint64_t)which);
    memcached_behavior_set(memcached, MEMCACHED_BEHAVIOR_POLL_TIMEOUT, 60000);
    return memcached;
}

static int stores_and_fetches(memcached_st *memcached, int number, int round)
{
    size_t length = length_of(round), got_length = 0;
    char *value = malloc(length), *got, key[32];
    memcached_return_t code;
    uint32_t flags;
    int right;

    if (value == NULL)
        ex_die("malloc");
    memset(value, 'a' + (number + round) % 26, length);
    snprintf(key, sizeof(key), "colib-%d-%d", number, round);
    code = memcached_set(memcached, key, strlen(key), value, length, 600, 0);
    if (code != MEMCACHED_SUCCESS)
        cl_die("cannot store: %s", memcached_last_error_message(memcached));
    got = memcached_get(memcached, key, strlen(key), &got_length, &flags, &code);
    if (code != MEMCACHED_SUCCESS)
        cl_die("cannot fetch: %s", memcached_last_error_message(memcached));
    right = got != NULL && got_length == length && memcmp(got, value, length) == 0;
    free(got);
    free(value);
    return right;
}

/* Nobody answers to a datagram: the value is fetched by TCP until it is there. */
static int stores_by_udp(memcached_st *memcached, int number)
{
    memcached_st *udp = connected(0, 1);
    memcached_return_t code;
    char key[32], *got = NULL;
    size_t got_length;
    uint32_t flags;
    int right;

    snprintf(key, sizeof(key), "colib-udp-%d", number);
    code = memcached_set(udp, key, strlen(key), key, strlen(key), 600, 0);
    if (code != MEMCACHED_SUCCESS && code != MEMCACHED_BUFFERED)
        cl_die("cannot send a datagram: %s", memcached_last_error_message(udp));
    for (int i = 0; i < 2000 && got == NULL; i++) {
        got = memcached_get(memcached, key, strlen(key), &got_length, &flags, &code);
        if (got == NULL)
            poll(NULL, 0, 5);
    }
    right = got != NULL && got_length == strlen(key) && memcmp(got, key, got_length) == 0;
    free(got);
    memcached_free(udp);
    return right;
}

static void store_and_fetch(int number)
{
    int which = number % 2 == 0; /* the second server's come first */
    memcached_st *memcached = connected(which, 0);

    for (int round = 0; round < VALUES; round++)
        values_right[which] += stores_and_fetches(memcached, number, round);
    if (which == 0)
        datagrams_right += stores_by_udp(memcached, number);
    memcached_free(memcached);
    if (++coroutines_done[which] == coroutine_count / 2) {
        if (which == 0)
            printf("by UDP: %ld values right\n", datagrams_right);
        printf("%s server: %ld coroutines, %ld values right\n", which == 0 ? "first" : "second",
               coroutines_done[which], values_right[which]);
        fflush(stdout);
    }
}

int main(int argc, char **argv)
{
    if (argc < 4)
        ex_bad_input(USAGE, "too few arguments");
    if (argc > 5)
        ex_bad_input(USAGE, "unexpected argument '%s'", argv[5]);
    server_ip = argv[1];
    ports[0] = ex_number(USAGE, "PORT", argv[2], 1, 65535);
    ports[1] = ex_number(USAGE, "SECOND_PORT", argv[3], 1, 65535);
    ex_address(USAGE, server_ip, ports[0]);
    if (argc > 4)
        coroutine_count = ex_number(USAGE, "COROUTINES", argv[4], 2, 10000);
    coroutine_count -= coroutine_count % 2;
    if (co_set_hooks("default,sendmsg") != 0)
        ex_die("co_set_hooks");
    /* What the sockets made from now on start with, instead of libco's one second. */
    co_set_timeout(-1, 60 * 1000, 60 * 1000);

    cl_run((int)coroutine_count, store_and_fetch);
    if (values_right[0] + values_right[1] != coroutine_count * VALUES)
        cl_die("only %ld of %ld values were right", values_right[0] + values_right[1], coroutine_count * VALUES);
    if (datagrams_right != coroutine_count / 2)
        cl_die("only %ld of %ld datagrams arrived", datagrams_right, coroutine_count / 2);
    return EXIT_SUCCESS;
}
