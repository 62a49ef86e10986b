/*
 * libpq, its blocking API: coroutines of one thread each have a connection of their own, sleep in the server at the
 * same time, then run a transaction each.
 *
 *   cc -std=c11 -I$(pg_config --includedir) -Iinclude c_examples/clients/client_libpq.c lib/libcolib.a \
 *       -lpq -lpthread -ldl -lm -o client_libpq
 *   ./client_libpq "host=127.0.0.1 port=5432 user=me dbname=test"
 *
 * Arguments: CONNECTION_STRING [COROUTINES]. Host as a number (hostaddr=): a name would be looked up by the thread.
 *
 * Makes and drops the table colib_accounts. Prints
 *   50 coroutines in pg_sleep(0.2): 0.21 s
 *   50 transactions: the table has 50 rows, their sum is right
 */
#include "client_common.h"

#include <libpq-fe.h>

static const char USAGE[] = "CONNECTION_STRING [COROUTINES]";

static const char *connection_string;
static long coroutine_count = 50;
static PGconn **connections;
static int right;

static PGresult *checked(PGconn *database, PGresult *result, ExecStatusType status)
{
    if (PQresultStatus(result) != status)
        cl_die("unexpected result: %s", PQerrorMessage(database));
    return result;
}

static void run(PGconn *database, const char *command)
{
    PQclear(checked(database, PQexec(database, command), PGRES_COMMAND_OK));
}

static void connect_one(int number)
{
    PGconn *database = PQconnectdb(connection_string);

    if (PQstatus(database) != CONNECTION_OK)
        cl_die("cannot connect: %s", PQerrorMessage(database));
    connections[number] = database;
}

static void sleep_in_server(int number)
{
    PGconn *database = connections[number];
    char command[64];
    PGresult *result;

    snprintf(command, sizeof(command), "SELECT %d, pg_sleep(0.2)", number);
    result = checked(database, PQexec(database, command), PGRES_TUPLES_OK);
    right += PQntuples(result) == 1 && atoi(PQgetvalue(result, 0, 0)) == number;
    PQclear(result);
}

static void transaction(int number)
{
    PGconn *database = connections[number];
    char text[16];
    const char *values[] = {text};

    snprintf(text, sizeof(text), "%d", number);
    run(database, "BEGIN");
    PQclear(checked(database,
                    PQexecParams(database, "INSERT INTO colib_accounts VALUES ($1::int, 0)", 1, NULL, values, NULL,
                                 NULL, 0),
                    PGRES_COMMAND_OK));
    PQclear(checked(database,
                    PQexecParams(database, "UPDATE colib_accounts SET amount = id * 2 WHERE id = $1::int", 1, NULL,
                                 values, NULL, NULL, 0),
                    PGRES_COMMAND_OK));
    run(database, "COMMIT");
}

static void disconnect(int number)
{
    PQfinish(connections[number]);
}

static void check_table(int unused)
{
    PGresult *result;

    (void)unused;
    result = checked(connections[0], PQexec(connections[0], "SELECT count(*), sum(amount) FROM colib_accounts"),
                     PGRES_TUPLES_OK);
    if (atol(PQgetvalue(result, 0, 0)) != coroutine_count ||
        atol(PQgetvalue(result, 0, 1)) != coroutine_count * (coroutine_count - 1))
        cl_die("wrong: %s rows, sum %s", PQgetvalue(result, 0, 0), PQgetvalue(result, 0, 1));
    printf("%ld transactions: the table has %s rows, their sum is right\n", coroutine_count,
           PQgetvalue(result, 0, 0));
    PQclear(result);
    run(connections[0], "DROP TABLE colib_accounts");
}

static void make_table(int unused)
{
    (void)unused;
    run(connections[0], "CREATE TABLE colib_accounts (id int PRIMARY KEY, amount int)");
}

int main(int argc, char **argv)
{
    double seconds;

    if (argc < 2)
        ex_bad_input(USAGE, "too few arguments");
    if (argc > 3)
        ex_bad_input(USAGE, "unexpected argument '%s'", argv[3]);
    connection_string = argv[1];
    if (argc > 2)
        coroutine_count = ex_number(USAGE, "COROUTINES", argv[2], 1, 1000);
    connections = calloc((size_t)coroutine_count, sizeof(PGconn *));
    if (connections == NULL)
        ex_die("calloc");
    /* What the sockets made from now on start with; a query may take longer than libco's one second. */
    co_set_timeout(-1, 60 * 1000, 60 * 1000);

    cl_run((int)coroutine_count, connect_one);
    seconds = cl_run((int)coroutine_count, sleep_in_server);
    if (right != coroutine_count)
        cl_die("only %d of %ld got the right result", right, coroutine_count);
    printf("%ld coroutines in pg_sleep(0.2): %.2f s\n", coroutine_count, seconds);

    cl_run(1, make_table);
    cl_run((int)coroutine_count, transaction);
    cl_run(1, check_table);
    cl_run((int)coroutine_count, disconnect);
    free(connections);
    return EXIT_SUCCESS;
}
