/*
 * OpenSSL with blocking BIOs: coroutines of one thread do their handshakes at the same time, and when the last is done
 * each exchanges requests with a web server whose page /echo gives back what follows the question mark.
 *
 *   cc -std=c11 -Iinclude c_examples/clients/client_openssl.c lib/libcolib.a -lssl -lcrypto -lpthread -ldl -lm \
 *       -o client_openssl
 *   ./client_openssl 127.0.0.1 8443 ca.pem
 *
 * Arguments: IP PORT CA_FILE [COROUTINES [SINK_PORT]]. SINK_PORT: first one more coroutine writes 16 MB there, to a server
 * that may take as long as it likes to read them.
 *
 * Prints
 *   100 handshakes: all connections open at once
 *   100 coroutines: 1000 echoes right
 * and with SINK_PORT
 *   16777216 bytes written to the sink
 */
#include "client_common.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

static const char USAGE[] = "IP PORT CA_FILE [COROUTINES [SINK_PORT]]";

enum { ROUNDS = 10, SINK_BYTES = 16 * 1024 * 1024 };

static const char *server_ip;
static char server[64], sink[64]; /* IP:PORT */
static long coroutine_count = 100;
static SSL_CTX *context;
static stCoCond_t *all_open;
static int open_count, most_open;
static long echoes_right;

__attribute__((noreturn)) static void die_of_ssl(const char *what)
{
    fprintf(stderr, "%s: %s\n", program_invocation_short_name, what);
    ERR_print_errors_fp(stderr);
    exit(EXIT_FAILURE);
}

static BIO *shaken_hands(const char *with)
{
    BIO *bio = BIO_new_ssl_connect(context);
    SSL *ssl = NULL;

    if (bio == NULL || BIO_get_ssl(bio, &ssl) != 1)
        die_of_ssl("no connection object");
    if (X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), server_ip) != 1)
        die_of_ssl("cannot ask for the server's address to be checked");
    BIO_set_conn_hostname(bio, with);
    if (BIO_do_connect(bio) != 1 || BIO_do_handshake(bio) != 1)
        die_of_ssl("no handshake");
    return bio;
}

/* Reads an answer up to its end: whatever was asked stands there as the last line. */
static int answers(BIO *bio, const char *wanted)
{
    char answer[1024];
    size_t length = 0, wanted_length = strlen(wanted);

    while (length < sizeof(answer) - 1) {
        int got = BIO_read(bio, answer + length, (int)(sizeof(answer) - 1 - length));

        if (got <= 0)
            die_of_ssl("no answer");
        length += (size_t)got;
        answer[length] = '\0';
        if (strstr(answer, "\r\n\r\n") != NULL && length >= wanted_length &&
            strcmp(answer + length - wanted_length, wanted) == 0)
            return strncmp(answer, "HTTP/1.1 200 ", 13) == 0;
    }
    return 0;
}

static void fill_sink(void)
{
    char line[1024];
    BIO *bio = shaken_hands(sink);

    memset(line, 'x', sizeof(line) - 1);
    line[sizeof(line) - 1] = '\n';
    for (int written = 0; written < SINK_BYTES; written += (int)sizeof(line))
        if (BIO_write(bio, line, (int)sizeof(line)) != (int)sizeof(line))
            die_of_ssl("cannot write to the sink");
    printf("%d bytes written to the sink\n", SINK_BYTES);
    BIO_ssl_shutdown(bio);
    BIO_free_all(bio);
}

/* Reports as soon as the echoes are done: the sink may still be at it. */
static void report(void)
{
    if (most_open != coroutine_count)
        cl_die("only %d connections were open at once", most_open);
    printf("%d handshakes: all connections open at once\n", most_open);
    if (echoes_right != coroutine_count * ROUNDS)
        cl_die("only %ld of %ld echoes were right", echoes_right, coroutine_count * ROUNDS);
    printf("%ld coroutines: %ld echoes right\n", coroutine_count, echoes_right);
    fflush(stdout);
}

static void echo(int number)
{
    BIO *bio = shaken_hands(server);

    /* Nobody asks before everybody is connected: a handshake that stopped the thread would end here for ever. */
    if (++open_count > most_open)
        most_open = open_count;
    if (open_count == coroutine_count)
        co_cond_broadcast(all_open);
    else
        co_cond_timedwait(all_open, -1);

    for (int round = 0; round < ROUNDS; round++) {
        char request[128], wanted[32];

        snprintf(wanted, sizeof(wanted), "[%d:%d]", number, round);
        snprintf(request, sizeof(request), "GET /echo?%s HTTP/1.1\r\nHost: %s\r\n\r\n", wanted, server);
        if (BIO_puts(bio, request) != (int)strlen(request))
            die_of_ssl("cannot write");
        echoes_right += answers(bio, wanted);
    }
    BIO_free_all(bio);
    if (--open_count == 0)
        report();
}

static void echo_or_fill(int number)
{
    if (sink[0] == '\0')
        echo(number);
    else if (number == 0)
        fill_sink();
    else
        echo(number - 1);
}

int main(int argc, char **argv)
{
    long port;

    if (argc < 4)
        ex_bad_input(USAGE, "too few arguments");
    if (argc > 6)
        ex_bad_input(USAGE, "unexpected argument '%s'", argv[6]);
    server_ip = argv[1];
    port = ex_number(USAGE, "PORT", argv[2], 1, 65535);
    ex_address(USAGE, server_ip, port);
    if (argc > 4)
        coroutine_count = ex_number(USAGE, "COROUTINES", argv[4], 1, 10000);
    if (argc > 5)
        snprintf(sink, sizeof(sink), "%s:%ld", server_ip, ex_number(USAGE, "SINK_PORT", argv[5], 1, 65535));
    snprintf(server, sizeof(server), "%s:%ld", server_ip, port);

    context = SSL_CTX_new(TLS_client_method());
    all_open = co_cond_alloc();
    if (context == NULL || all_open == NULL)
        die_of_ssl("no memory");
    if (SSL_CTX_load_verify_locations(context, argv[3], NULL) != 1)
        die_of_ssl("cannot read CA_FILE");
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    /* What the sockets made from now on start with; the last to connect may take longer than libco's one second. */
    co_set_timeout(-1, 60 * 1000, 60 * 1000);

    cl_run((int)coroutine_count + (sink[0] != '\0'), echo_or_fill);
    co_cond_free(all_open);
    SSL_CTX_free(context);
    return EXIT_SUCCESS;
}
