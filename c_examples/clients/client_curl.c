/*
 * libcurl's easy interface: coroutines of one thread each download files on a connection of their own, while one of
 * them reads from a slow server.
 *
 *   cc -std=c11 -Iinclude c_examples/clients/client_curl.c lib/libcolib.a -lcurl -lpthread -ldl -lm -o client_curl
 *   ./client_curl https://127.0.0.1:8443/file https://127.0.0.1:8443/slow 100 ca.pem
 *
 * Arguments: URL SLOW_URL [COROUTINES [CA_FILE]]. Both URLs give the same file; hosts as numbers, since a name would be
 * looked up by a thread that libcurl makes. CA_FILE: the certificate that signed the server's, for https.
 *
 * Prints
 *   reference: 1048576 bytes
 *   99 coroutines: 297 files in 0.52 s, every byte right, one connection each
 *   the slow file: 2.00 s, every byte right, after all others
 */
#include "client_common.h"

#include <curl/curl.h>

static const char USAGE[] = "URL SLOW_URL [COROUTINES [CA_FILE]]";

enum { FILES = 3 };

struct download {
    size_t size;
    int wrong;
};

static const char *url, *slow_url, *ca_file;
static long coroutine_count = 100;
static char *reference;
static size_t reference_size;
static int files_right, others_ended, ended_before_slow;
static double start, others_seconds, slow_seconds;

static size_t keep(char *data, size_t one, size_t size, void *unused)
{
    char *grown = realloc(reference, reference_size + size);

    (void)one;
    (void)unused;
    if (grown == NULL)
        return 0;
    reference = grown;
    memcpy(reference + reference_size, data, size);
    reference_size += size;
    return size;
}

static size_t compare(char *data, size_t one, size_t size, void *argument)
{
    struct download *download = argument;

    (void)one;
    if (size > reference_size - download->size || memcmp(reference + download->size, data, size) != 0) {
        download->wrong = 1;
        return 0;
    }
    download->size += size;
    return size;
}

static CURL *prepared(const char *from, curl_write_callback callback)
{
    CURL *curl = curl_easy_init();

    if (curl == NULL)
        cl_die("curl_easy_init failed");
    curl_easy_setopt(curl, CURLOPT_URL, from);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L); /* no time-out by a signal, which would hit any coroutine */
    curl_easy_setopt(curl, CURLOPT_NOPROXY, "*");
    curl_easy_setopt(curl, CURLOPT_FAILONERROR, 1L);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT, 60L);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, callback);
    if (ca_file != NULL)
        curl_easy_setopt(curl, CURLOPT_CAINFO, ca_file);
    return curl;
}

static void perform(CURL *curl)
{
    CURLcode code = curl_easy_perform(curl);

    if (code != CURLE_OK)
        cl_die("download failed: %s", curl_easy_strerror(code));
}

/* How many new connections the downloads of this handle took. */
static long download_compared(CURL *curl)
{
    struct download download = {0, 0};
    long connects = 0;

    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &download);
    perform(curl);
    files_right += !download.wrong && download.size == reference_size;
    curl_easy_getinfo(curl, CURLINFO_NUM_CONNECTS, &connects);
    return connects;
}

static void download_files(int number)
{
    CURL *curl = prepared(number == 0 ? slow_url : url, compare);
    long connects = 0;

    if (number == 0) {
        download_compared(curl);
        slow_seconds = cl_seconds() - start;
        ended_before_slow = others_ended;
    } else {
        for (int i = 0; i < FILES; i++)
            connects += download_compared(curl);
        if (connects != 1)
            cl_die("%ld connections for %d files", connects, FILES);
        others_ended++;
        others_seconds = cl_seconds() - start;
    }
    curl_easy_cleanup(curl);
}

int main(int argc, char **argv)
{
    long others;
    CURL *curl;

    if (argc < 3)
        ex_bad_input(USAGE, "too few arguments");
    if (argc > 5)
        ex_bad_input(USAGE, "unexpected argument '%s'", argv[5]);
    url = argv[1];
    slow_url = argv[2];
    if (argc > 3)
        coroutine_count = ex_number(USAGE, "COROUTINES", argv[3], 2, 10000);
    if (argc > 4)
        ca_file = argv[4];
    if (curl_global_init(CURL_GLOBAL_ALL) != 0)
        cl_die("curl_global_init failed");

    curl = prepared(url, keep); /* outside any coroutine: as without the library */
    perform(curl);
    curl_easy_cleanup(curl);
    printf("reference: %zu bytes\n", reference_size);

    others = coroutine_count - 1;
    start = cl_seconds();
    cl_run((int)coroutine_count, download_files);
    if (files_right != others * FILES + 1)
        cl_die("only %d of %ld files were right", files_right, others * FILES + 1);
    printf("%ld coroutines: %ld files in %.2f s, every byte right, one connection each\n", others, others * FILES,
           others_seconds);
    if (ended_before_slow != others)
        cl_die("the slow file held up %ld of the others", others - ended_before_slow);
    printf("the slow file: %.2f s, every byte right, after all others\n", slow_seconds);
    curl_global_cleanup();
    free(reference);
    return EXIT_SUCCESS;
}
