/*
 * Looking names up side by side: each coroutine calls getaddrinfo() as any program would, and waits for its own answer alone.
 *
 *   cc -std=c11 -Iinclude c_examples/example_resolve.c lib/libcolib.a -lpthread -ldl -lm -o example_resolve
 *   ./example_resolve localhost 192.0.2.1 no-such-name.example
 *
 * Arguments: [-t THREADS] NAME ...
 *   -t sets how many helper threads make the real calls at most (16). An address in digits needs none.
 *
 * Prints the answers in the order of the names, whichever came first:
 *   localhost: 127.0.0.1
 *   192.0.2.1: 192.0.2.1
 *   no-such-name.example: Name or service not known
 * and ends with status 1 if a name had no answer.
 */
#include "example_common.h"

#include <netdb.h>
#include <sys/socket.h>

static const char USAGE[] = "[-t THREADS] NAME ...";

struct lookup {
    const char *name;
    int status, error; /* what getaddrinfo returned, and errno then */
    struct addrinfo *list;
};

static int running;

static void *look_up(void *argument)
{
    struct lookup *lookup = argument;
    struct addrinfo hints;

    memset(&hints, 0, sizeof(hints));
    hints.ai_socktype = SOCK_STREAM; /* each address once, not once for each kind of socket */

    co_enable_hook_sys(); /* from here on getaddrinfo lets the others run */
    lookup->status = getaddrinfo(lookup->name, NULL, &hints, &lookup->list);
    lookup->error = errno;
    running--;
    return NULL;
}

static void print(const struct lookup *lookup)
{
    char text[NI_MAXHOST];

    printf("%s:", lookup->name);
    if (lookup->status != 0)
        printf(" %s", lookup->status == EAI_SYSTEM ? strerror(lookup->error) : gai_strerror(lookup->status));
    for (const struct addrinfo *at = lookup->list; at != NULL; at = at->ai_next) {
        int status = getnameinfo(at->ai_addr, at->ai_addrlen, text, sizeof(text), NULL, 0, NI_NUMERICHOST);

        printf(" %s", status == 0 ? text : gai_strerror(status));
    }
    putchar('\n');
}

int main(int argc, char **argv)
{
    int first = 1, count, failed = 0;
    struct lookup *lookups;
    stCoRoutine_t **coroutines;

    if (argc > 2 && strcmp(argv[1], "-t") == 0) {
        if (co_set_helper_threads((int)ex_number(USAGE, "THREADS", argv[2], 1, 1024)) != 0)
            ex_die("co_set_helper_threads");
        first = 3;
    }
    count = argc - first;
    if (count < 1)
        ex_bad_input(USAGE, "too few arguments");
    if (argv[first][0] == '-')
        ex_bad_input(USAGE, "unexpected argument '%s'", argv[first]);

    lookups = calloc((size_t)count, sizeof(*lookups));
    coroutines = calloc((size_t)count, sizeof(*coroutines));
    if (lookups == NULL || coroutines == NULL)
        ex_die("calloc");

    running = count;
    for (int i = 0; i < count; i++) {
        lookups[i].name = argv[first + i];
        coroutines[i] = ex_start(look_up, &lookups[i]); /* comes back when the lookup is under way */
    }
    ex_run_until_zero(&running);

    for (int i = 0; i < count; i++) {
        print(&lookups[i]);
        failed += lookups[i].status != 0;
        if (lookups[i].list != NULL)
            freeaddrinfo(lookups[i].list);
        co_release(coroutines[i]);
    }
    free(coroutines);
    free(lookups);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
