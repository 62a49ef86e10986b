/*
 * libmariadb, its blocking API: coroutines of one thread each have a connection of their own, sleep in the server at
 * the same time, then run many small queries.
 *
 *   cc -std=c11 $(mariadb_config --include) -Iinclude c_examples/clients/client_mariadb.c lib/libcolib.a \
 *       -lmariadb -lpthread -ldl -lm -o client_mariadb
 *   ./client_mariadb 127.0.0.1 3306 root ""
 *
 * Arguments: IP PORT USER PASSWORD [COROUTINES [QUERIES]]; or IP PORT USER PASSWORD killed: every coroutine sleeps
 * in the server for a minute; kill the server meanwhile and each gets an error.
 *
 * Prints
 *   50 coroutines in SLEEP(0.2): 0.21 s
 *   20000 queries: every result right
 * or
 *   waiting
 *   50 coroutines got an error
 */
#include "client_common.h"

#include <mysql.h>

static const char USAGE[] = "IP PORT USER PASSWORD [COROUTINES [QUERIES] | killed]";

static const char *server_ip, *user, *password;
static unsigned server_port;
static long coroutine_count = 50, query_count = 20000;
static MYSQL **connections;
static long right;

static void connect_one(int number)
{
    MYSQL *database = mysql_init(NULL);
    unsigned protocol = MYSQL_PROTOCOL_TCP;

    if (database == NULL)
        cl_die("no memory");
    mysql_options(database, MYSQL_OPT_PROTOCOL, &protocol);
    if (mysql_real_connect(database, server_ip, user, password, NULL, server_port, NULL, 0) == NULL)
        cl_die("cannot connect: %s", mysql_error(database));
    connections[number] = database;
}

/* The only value of a query's only row. */
static long value_of(MYSQL *database, const char *query)
{
    MYSQL_RES *result;
    MYSQL_ROW row;
    long value;

    if (mysql_query(database, query) != 0 || (result = mysql_store_result(database)) == NULL)
        cl_die("%s: %s", query, mysql_error(database));
    row = mysql_fetch_row(result);
    value = row == NULL || row[0] == NULL ? -1 : atol(row[0]);
    mysql_free_result(result);
    return value;
}

static void sleep_in_server(int number)
{
    char query[64];

    snprintf(query, sizeof(query), "SELECT SLEEP(0.2) + %d", number);
    right += value_of(connections[number], query) == number;
}

static void small_queries(int number)
{
    for (long i = number; i < query_count; i += coroutine_count) {
        char query[64];

        snprintf(query, sizeof(query), "SELECT %ld * 3", i);
        right += value_of(connections[number], query) == i * 3;
    }
}

static void sleep_until_killed(int number)
{
    static int started;

    if (++started == coroutine_count) {
        puts("waiting");
        fflush(stdout);
    }
    right += mysql_query(connections[number], "SELECT SLEEP(60)") != 0 && mysql_errno(connections[number]) != 0;
}

static void disconnect(int number)
{
    mysql_close(connections[number]);
}

static void sleep_and_query(void)
{
    double seconds = cl_run((int)coroutine_count, sleep_in_server);

    if (right != coroutine_count)
        cl_die("only %ld of %ld got the right result", right, coroutine_count);
    printf("%ld coroutines in SLEEP(0.2): %.2f s\n", coroutine_count, seconds);

    right = 0;
    cl_run((int)coroutine_count, small_queries);
    if (right != query_count)
        cl_die("only %ld of %ld queries were right", right, query_count);
    printf("%ld queries: every result right\n", query_count);
}

int main(int argc, char **argv)
{
    int killed = argc == 6 && strcmp(argv[5], "killed") == 0;

    if (argc < 5)
        ex_bad_input(USAGE, "too few arguments");
    if (argc > 7)
        ex_bad_input(USAGE, "unexpected argument '%s'", argv[7]);
    server_ip = argv[1];
    server_port = (unsigned)ex_number(USAGE, "PORT", argv[2], 1, 65535);
    ex_address(USAGE, server_ip, server_port);
    user = argv[3];
    password = argv[4];
    if (argc > 5 && !killed)
        coroutine_count = ex_number(USAGE, "COROUTINES", argv[5], 1, 1000);
    if (argc > 6)
        query_count = ex_number(USAGE, "QUERIES", argv[6], 1, 10000000);
    connections = calloc((size_t)coroutine_count, sizeof(MYSQL *));
    if (connections == NULL)
        ex_die("calloc");
    if (mysql_library_init(0, NULL, NULL) != 0)
        cl_die("mysql_library_init failed");
    /* What the sockets made from now on start with; a query may take longer than libco's one second. */
    co_set_timeout(-1, 120 * 1000, 120 * 1000);

    cl_run((int)coroutine_count, connect_one);
    if (killed) {
        cl_run((int)coroutine_count, sleep_until_killed);
        if (right != coroutine_count)
            cl_die("only %ld of %ld got an error", right, coroutine_count);
        printf("%ld coroutines got an error\n", right);
    } else {
        sleep_and_query();
    }
    cl_run((int)coroutine_count, disconnect);
    free(connections);
    mysql_library_end();
    return EXIT_SUCCESS;
}
