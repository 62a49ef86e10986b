/*
 * hiredis, its blocking API: coroutines of one thread wait in BLPOP until others push; then pipelines.
 *
 *   cc -std=c11 -Iinclude c_examples/clients/client_hiredis.c lib/libcolib.a -lhiredis -lpthread -ldl -lm -o client_hiredis
 *   ./client_hiredis 127.0.0.1 6379
 *
 * Arguments: IP PORT [COROUTINES [COMMANDS]]
 *
 * Prints
 *   200 coroutines: 100 waited in BLPOP, 100 woke them
 *   4 pipelines of 10000 commands: every reply in its place
 */
#include "client_common.h"

#include <poll.h>

#include <hiredis/hiredis.h>

static const char USAGE[] = "IP PORT [COROUTINES [COMMANDS]]";

enum { PIPELINES = 4 };

static const char *server_ip;
static int server_port;
static long coroutine_count = 200, command_count = 10000;
static int waiting, woken, pipelines_right;

static redisContext *connected(void)
{
    redisContext *redis = redisConnect(server_ip, server_port);

    if (redis == NULL || redis->err != 0)
        cl_die("cannot connect to %s:%d: %s", server_ip, server_port, redis == NULL ? "no memory" : redis->errstr);
    /* Hooked reads give up after a second unless told otherwise, as in libco; a BLPOP may take longer. */
    if (co_set_timeout(redis->fd, -1, -1) != 0)
        ex_die("co_set_timeout");
    return redis;
}

static redisReply *checked(redisContext *redis, void *reply, int type)
{
    redisReply *result = reply;

    if (result == NULL)
        cl_die("no reply: %s", redis->errstr);
    if (result->type != type)
        cl_die("a reply of type %d, not %d: %s", result->type, type, result->str == NULL ? "" : result->str);
    return result;
}

/* Even ones wait on a list of their own, the next odd one pushes to it once they all wait. */
static void wait_or_wake(int number)
{
    redisContext *redis = connected();
    redisReply *reply;

    if (number % 2 == 0) {
        char value[32];

        waiting++;
        reply = checked(redis, redisCommand(redis, "BLPOP colib:list:%d 30", number), REDIS_REPLY_ARRAY);
        snprintf(value, sizeof(value), "value-%d", number);
        if (reply->elements == 2 && strcmp(reply->element[1]->str, value) == 0)
            woken++;
    } else {
        while (waiting < coroutine_count / 2)
            poll(NULL, 0, 1);
        reply = checked(redis, redisCommand(redis, "RPUSH colib:list:%d value-%d", number - 1, number - 1),
                        REDIS_REPLY_INTEGER);
    }
    freeReplyObject(reply);
    redisFree(redis);
}

static void pipeline(int number)
{
    redisContext *redis = connected();
    long right = 0;
    void *reply;

    for (long i = 0; i < command_count; i++)
        if (redisAppendCommand(redis, "ECHO %d:%ld", number, i) != REDIS_OK)
            cl_die("no memory for a command: %s", redis->errstr);
    for (long i = 0; i < command_count; i++) {
        char wanted[48];

        snprintf(wanted, sizeof(wanted), "%d:%ld", number, i);
        if (redisGetReply(redis, &reply) != REDIS_OK)
            cl_die("no reply: %s", redis->errstr);
        right += strcmp(checked(redis, reply, REDIS_REPLY_STRING)->str, wanted) == 0;
        freeReplyObject(reply);
    }
    pipelines_right += right == command_count;
    redisFree(redis);
}

int main(int argc, char **argv)
{
    if (argc < 3)
        ex_bad_input(USAGE, "too few arguments");
    if (argc > 5)
        ex_bad_input(USAGE, "unexpected argument '%s'", argv[5]);
    server_ip = argv[1];
    server_port = (int)ex_number(USAGE, "PORT", argv[2], 1, 65535);
    ex_address(USAGE, server_ip, server_port);
    if (argc > 3)
        coroutine_count = ex_number(USAGE, "COROUTINES", argv[3], 2, 10000);
    if (argc > 4)
        command_count = ex_number(USAGE, "COMMANDS", argv[4], 1, 1000000);
    coroutine_count -= coroutine_count % 2;

    cl_run((int)coroutine_count, wait_or_wake);
    if (woken != coroutine_count / 2)
        cl_die("only %d of %ld got the right value", woken, coroutine_count / 2);
    printf("%ld coroutines: %d waited in BLPOP, %d woke them\n", coroutine_count, waiting, woken);

    cl_run(PIPELINES, pipeline);
    if (pipelines_right != PIPELINES)
        cl_die("only %d of %d pipelines were right", pipelines_right, PIPELINES);
    printf("%d pipelines of %ld commands: every reply in its place\n", PIPELINES, command_count);
    return EXIT_SUCCESS;
}
