/*
 * An HTTP/1.1 server in plain blocking style: one coroutine a connection that reads a request, writes the answer, and
 * goes on until the peer has gone, asks to close, or is silent for too long.
 *
 *   cc -std=c11 -Iinclude c_examples/example_httpsvr.c lib/libcolib.a -lpthread -ldl -lm -o example_httpsvr
 *   ./example_httpsvr 127.0.0.1 8080
 *   curl http://127.0.0.1:8080/
 *
 * Arguments: IP PORT [PROCESS_COUNT [IDLE_SECONDS]]
 *   PORT 0 takes a free port. PROCESS_COUNT (1) processes share the port. A connection that sends nothing for
 *   IDLE_SECONDS (60) is closed.
 *
 * Prints "listening on IP:PORT". GET and HEAD of / answer "Hello, world", of /stats the answering process's connections,
 * coroutines and memory. SIGTERM or SIGINT ends it with status 0.
 *
 * A process has no limit on connections but its descriptors (the hard RLIMIT_NOFILE less about ten). Beyond that,
 * connections wait in the kernel's queue: the server says so once and takes them as others end.
 */
#include "example_server.h"

#include <netinet/tcp.h>
#include <stdbool.h>
#include <strings.h>
#include <sys/time.h>

static const char USAGE[] = "IP PORT [PROCESS_COUNT [IDLE_SECONDS]]";

enum {
    INPUT_SIZE = 8 * 1024, /* a longer request head is refused with status 431 */
    OUTPUT_SIZE = 2 * 1024,
    LONGEST_ANSWER = 512,
    LINGER_SECONDS = 2,
    LINGER_BYTES = 1024 * 1024,
};

static int listener;
static long idle_seconds = 60;
static unsigned long connections;
static stCoRoutine_t *ended; /* the coroutine that ended last: nobody runs on its stack, so the next one releases it */

/* What a connection has received and not yet used, input[start..end], and what it has not yet sent. */
struct stream {
    int fd;
    size_t start, end, pending;
    char input[INPUT_SIZE];
    char output[OUTPUT_SIZE];
};

struct request {
    bool head_only;  /* HEAD: the answer's body is left out */
    bool http_1_0;
    bool keep_alive;
    const char *path;
    size_t path_length;
};

static bool text_is(const char *text, size_t length, const char *expected)
{
    return length == strlen(expected) && strncasecmp(text, expected, length) == 0;
}

static bool is_line_end(char c)
{
    return c == '\r' || c == '\n';
}

/* The length of the request head at the start of the text, its empty line included; 0 while it is incomplete. */
static size_t head_length(const char *text, size_t length)
{
    const char *end = text + length;

    for (const char *line = text; (line = memchr(line, '\n', (size_t)(end - line))) != NULL;) {
        line++;
        if (end - line >= 1 && line[0] == '\n')
            return (size_t)(line - text) + 1;
        if (end - line >= 2 && line[0] == '\r' && line[1] == '\n')
            return (size_t)(line - text) + 2;
    }
    return 0;
}

/* "GET /path?query HTTP/1.1", or the target with "http://host" before it. Returns the status to answer with. */
static int parse_request_line(const char *line, size_t length, struct request *request)
{
    const char *end = line + length;
    const char *target = memchr(line, ' ', length);
    const char *version = target == NULL ? NULL : memchr(target + 1, ' ', (size_t)(end - target - 1));
    const char *query;

    if (version == NULL || target == line || version == ++target)
        return 400;
    if (end - ++version != 8 || memcmp(version, "HTTP/", 5) != 0 || version[6] != '.')
        return 400;
    if (version[5] != '1' || version[7] < '0' || version[7] > '9')
        return 505;
    request->http_1_0 = version[7] == '0';
    request->keep_alive = !request->http_1_0;
    request->head_only = (size_t)(target - line) == 5 && memcmp(line, "HEAD ", 5) == 0;
    if (!request->head_only && ((size_t)(target - line) != 4 || memcmp(line, "GET ", 4) != 0))
        return 405;

    length = (size_t)(version - 1 - target);
    if (length >= 7 && strncasecmp(target, "http://", 7) == 0) {
        const char *path = memchr(target + 7, '/', length - 7);

        length -= path == NULL ? length : (size_t)(path - target);
        target = path == NULL ? "/" : path;
        length = path == NULL ? 1 : length;
    }
    if (target[0] != '/')
        return 400;
    query = memchr(target, '?', length);
    request->path = target;
    request->path_length = query == NULL ? length : (size_t)(query - target);
    return 200;
}

/* "Connection: token, token" */
static void parse_connection(const char *value, size_t length, struct request *request)
{
    const char *end = value + length;

    while (value < end) {
        const char *token = value;

        while (value < end && strchr(", \t", *value) == NULL)
            value++;
        if (text_is(token, (size_t)(value - token), "close"))
            request->keep_alive = false;
        else if (text_is(token, (size_t)(value - token), "keep-alive") && request->http_1_0)
            request->keep_alive = true;
        if (value < end)
            value++;
    }
}

/* "Name: value". Returns the status to answer with; counts the Host fields. */
static int parse_field(const char *line, size_t length, struct request *request, int *hosts)
{
    const char *end = line + length;
    const char *colon = memchr(line, ':', length);
    const char *value;
    size_t name_length;

    if (colon == NULL || colon == line || line[0] == ' ' || line[0] == '\t' || colon[-1] == ' ' || colon[-1] == '\t')
        return 400;
    name_length = (size_t)(colon - line);
    for (value = colon + 1; value < end && (*value == ' ' || *value == '\t'); value++)
        continue;
    while (end > value && (end[-1] == ' ' || end[-1] == '\t'))
        end--;

    if (text_is(line, name_length, "Host"))
        ++*hosts;
    else if (text_is(line, name_length, "Connection"))
        parse_connection(value, (size_t)(end - value), request);
    else if (text_is(line, name_length, "Transfer-Encoding"))
        return 413; /* nothing here takes a body */
    else if (text_is(line, name_length, "Content-Length") && !text_is(value, (size_t)(end - value), "0"))
        return 413;
    return 200;
}

/* Returns 200, or the status that refuses the request. */
static int parse_head(const char *head, size_t length, struct request *request)
{
    const char *end = head + length;
    int status = 200, hosts = 0;

    memset(request, 0, sizeof(*request));
    if (memchr(head, '\0', length) != NULL)
        return 400;
    for (const char *line = head, *next; status == 200 && line < end; line = next) {
        const char *newline = memchr(line, '\n', (size_t)(end - line));
        size_t line_length = (size_t)(newline - line);

        next = newline + 1;
        if (line_length > 0 && newline[-1] == '\r')
            line_length--;
        if (line == head)
            status = parse_request_line(line, line_length, request);
        else if (line_length > 0)
            status = parse_field(line, line_length, request, &hosts);
    }
    if (status == 200 && hosts != 1 && !(request->http_1_0 && hosts == 0))
        status = 400;
    return status;
}

/* Blocks in form: the hooked write returns when everything is sent, or the peer takes nothing for idle_seconds. */
static bool flush_output(struct stream *stream)
{
    size_t size = stream->pending;

    stream->pending = 0;
    return size == 0 || write(stream->fd, stream->output, size) == (ssize_t)size;
}

static const char *reason_of(int status)
{
    switch (status) {
    case 200: return "OK";
    case 400: return "Bad Request";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 408: return "Request Timeout";
    case 413: return "Content Too Large";
    case 431: return "Request Header Fields Too Large";
    default: return "HTTP Version Not Supported";
    }
}

/* The Date field's value, made once a second. */
static const char *date(void)
{
    static char text[32];
    static time_t made;
    time_t now = time(NULL);
    struct tm parts;

    if (now != made && gmtime_r(&now, &parts) != NULL) {
        strftime(text, sizeof(text), "%a, %d %b %Y %H:%M:%S GMT", &parts);
        made = now;
    }
    return text;
}

/* Text, and a number up to 999999, behind what waits to be sent. (printf would be the dearest part of an answer.) */
static void put(struct stream *stream, const char *text)
{
    size_t length = strlen(text);

    memcpy(stream->output + stream->pending, text, length);
    stream->pending += length;
}

static void put_number(struct stream *stream, size_t number)
{
    char digits[7], *first = digits + sizeof(digits) - 1;

    *first = 0;
    do {
        *--first = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0 && first > digits);
    put(stream, first);
}

/* Puts an answer behind those that wait to be sent; false if the connection is lost. */
static bool answer(struct stream *stream, int status, const struct request *request, const char *body)
{
    if (OUTPUT_SIZE - stream->pending < LONGEST_ANSWER && !flush_output(stream))
        return false;
    put(stream, "HTTP/1.1 ");
    put_number(stream, (size_t)status);
    put(stream, " ");
    put(stream, reason_of(status));
    put(stream, "\r\nDate: ");
    put(stream, date());
    put(stream, "\r\nContent-Type: text/plain\r\nContent-Length: ");
    put_number(stream, strlen(body));
    if (status == 405)
        put(stream, "\r\nAllow: GET, HEAD");
    if (!request->keep_alive)
        put(stream, "\r\nConnection: close");
    else if (request->http_1_0)
        put(stream, "\r\nConnection: keep-alive");
    put(stream, "\r\n\r\n");
    if (!request->head_only)
        put(stream, body);
    return true;
}

/* Refuses what the peer sent; the connection is closed after that. */
static void refuse(struct stream *stream, int status, struct request *request)
{
    char body[64];

    request->keep_alive = false;
    snprintf(body, sizeof(body), "%d %s\n", status, reason_of(status));
    if (answer(stream, status, request, body))
        flush_output(stream);
}

/* The memory that this process has in use, in kB; 0 if the system does not tell. */
static unsigned long memory_kb(void)
{
    unsigned long kb = 0;
    char line[128];
    FILE *status = fopen("/proc/self/status", "re");

    if (status == NULL)
        return 0;
    while (fgets(line, sizeof(line), status) != NULL && sscanf(line, "VmRSS: %lu", &kb) != 1)
        continue;
    fclose(status);
    return kb;
}

static bool answer_path(struct stream *stream, struct request *request)
{
    char body[128];

    if (text_is(request->path, request->path_length, "/"))
        return answer(stream, 200, request, "Hello, world\n");
    if (!text_is(request->path, request->path_length, "/stats"))
        return answer(stream, 404, request, "404 Not Found\n");
    /* one coroutine a connection, one that accepts, one that waits for signals */
    snprintf(body, sizeof(body), "connections %lu\ncoroutines %lu\nmemory %lu kB\n", connections, connections + 2,
             memory_kb());
    return answer(stream, 200, request, body);
}

/*
 * Reads until a whole request head is there and returns its length. Sends the waiting answers before it waits itself.
 * 0 when the connection is over; *refusal is then the status to refuse with, if any.
 */
static size_t read_head(struct stream *stream, int *refusal)
{
    *refusal = 0;
    for (;;) {
        size_t length;
        ssize_t count;

        while (stream->start < stream->end && is_line_end(stream->input[stream->start]))
            stream->start++; /* empty lines before a request are allowed */
        length = head_length(stream->input + stream->start, stream->end - stream->start);
        if (length > 0)
            return length;
        if (!flush_output(stream))
            return 0;
        memmove(stream->input, stream->input + stream->start, stream->end - stream->start);
        stream->end -= stream->start;
        stream->start = 0;
        if (stream->end == INPUT_SIZE) {
            *refusal = 431;
            return 0;
        }
        count = read(stream->fd, stream->input + stream->end, INPUT_SIZE - stream->end);
        if (count <= 0) {
            if (count < 0 && errno == EAGAIN && stream->end > 0)
                *refusal = 408;
            return 0;
        }
        stream->end += (size_t)count;
    }
}

/* Serves a connection's requests. True if the peer may still be sending. */
static bool serve(int fd)
{
    struct stream stream;
    struct request request;
    size_t length;
    int status;

    stream.fd = fd;
    stream.start = stream.end = stream.pending = 0;
    while ((length = read_head(&stream, &status)) > 0) {
        status = parse_head(stream.input + stream.start, length, &request);
        if (status != 200) {
            refuse(&stream, status, &request);
            return true;
        }
        stream.start += length;
        if (!answer_path(&stream, &request))
            return false;
        if (!request.keep_alive)
            return flush_output(&stream);
    }
    memset(&request, 0, sizeof(request));
    if (status != 0)
        refuse(&stream, status, &request);
    return status != 0;
}

/* How long a read or write of the connection may wait; then it fails with EAGAIN. */
static bool set_timeout(int fd, long seconds)
{
    struct timeval limit = {seconds, 0};

    return setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) == 0 &&
           setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) == 0;
}

static bool prepare(int fd)
{
    int on = 1;

    return setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) == 0 && set_timeout(fd, idle_seconds);
}

/*
 * Takes what the peer still sends: to close with unread input would reset the connection, and the peer might lose the
 * answer.
 */
static void linger(int fd)
{
    char unwanted[1024];
    ssize_t count = 1;

    if (!set_timeout(fd, LINGER_SECONDS) || shutdown(fd, SHUT_WR) != 0)
        return;
    for (size_t total = 0; count > 0 && total < LINGER_BYTES; total += (size_t)count)
        count = read(fd, unwanted, sizeof(unwanted));
}

static void *connection_routine(void *argument)
{
    int fd = (int)(intptr_t)argument;

    co_enable_hook_sys();
    if (prepare(fd) && serve(fd))
        linger(fd);
    close(fd);
    connections--;

    if (ended != NULL)
        co_release(ended);
    ended = co_self();
    return NULL;
}

static void *accept_routine(void *unused)
{
    (void)unused;
    co_enable_hook_sys();
    for (;;) {
        int fd = ex_accept(listener);
        stCoRoutine_t *co = NULL;

        if (co_create(&co, NULL, connection_routine, (void *)(intptr_t)fd) != 0) {
            fprintf(stderr, "%s: no memory for another connection\n", program_invocation_short_name);
            close(fd);
            continue;
        }
        connections++;
        co_resume(co);
    }
    return NULL;
}

static void start_coroutines(long index, void *unused)
{
    (void)index;
    (void)unused;
    ex_start(accept_routine, NULL);
}

int main(int argc, char **argv)
{
    struct ex_workers workers;
    long port, process_count = 1;

    if (argc < 3)
        ex_bad_input(USAGE, "too few arguments");
    if (argc > 5)
        ex_bad_input(USAGE, "unexpected argument '%s'", argv[5]);
    port = ex_number(USAGE, "PORT", argv[2], 0, 65535);
    if (argc > 3)
        process_count = ex_number(USAGE, "PROCESS_COUNT", argv[3], 1, 1024);
    if (argc > 4)
        idle_seconds = ex_number(USAGE, "IDLE_SECONDS", argv[4], 1, 1000000);

    ex_raise_descriptor_limit();
    listener = ex_listen(USAGE, argv[1], port);
    if (process_count > 1) {
        workers = ex_start_workers(process_count, start_coroutines, NULL);
        ex_announce(listener);
        return ex_supervise(&workers);
    }
    ex_end_on_signals();
    start_coroutines(0, NULL);
    ex_announce(listener);
    co_eventloop(co_get_epoll_ct(), NULL, NULL);
    return EXIT_FAILURE; /* not reached: without a callback the loop runs for ever */
}
