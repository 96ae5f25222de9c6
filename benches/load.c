// The load of beside.py, over 127.0.0.1. Each mode prints one line, or two, and ends by itself.
//
//   load probe PORT PATH CONNECTIONS INTERVAL_MS SECONDS
//       Asks at a fixed rate, whatever the server does: each connection once in an interval. A request that could not be
//       sent when it was due counts from when it was due; one that is not answered 5 s after the end counts until then, as
//       an error. Prints "requests errors p50 p99 max", in microseconds.
//   load bulk PORT PATH CONNECTIONS SECONDS
//       Downloads again and again, as fast as it goes. Prints "bytes".
//   load slow PORT PATH CONNECTIONS SECONDS
//       Asks, and takes the first bytes of each response and no more, with small receive buffers. Prints "ready N" when
//       all have begun, and at the end "left N": connections that the server has not closed.
//   load accept PORT PATH CONNECTIONS SECONDS
//       A connection for each request, so many at once. Prints "requests errors".
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static int port;
static const char *path;
static double start, seconds, interval;
// A server that stalls is given so many seconds to answer what was due.
static const double PATIENCE = 5;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void sleep_until(double when) {
    double left = when - now();
    if (left > 0) usleep(left * 1e6);
}

// Connects; -1 if that fails. With so many connections, the ports of one address do not suffice.
static int dial(int number, int narrow) {
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1, small = 4096;
    if (fd < 0) return -1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (narrow) setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000101 + number / 5000)};
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(fd, IPPROTO_IP, 24 /* IP_BIND_ADDRESS_NO_PORT */, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&from, sizeof from) || connect(fd, (struct sockaddr *)&to, sizeof to)) {
        close(fd);
        return -1;
    }
    return fd;
}

// No response is waited for after the end and some patience.
static void give_up_in_time(int fd) {
    double left = start + seconds + PATIENCE - now();
    struct timeval most = {left > 0.01 ? (long)left : 0, left > 0.01 ? (left - (long)left) * 1e6 : 10000};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &most, sizeof most);
}

static int ask(int fd, const char *more) {
    char request[1024];
    int len = snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: x\r\n%s\r\n", path, more);
    return send(fd, request, len, MSG_NOSIGNAL) == len ? 0 : -1;
}

// Reads one response with a Content-Length. Its length, or -1; 0 if the connection was closed before a byte came.
static long answer(int fd, char *room, long size) {
    long have = 0, need = -1;
    while (need < 0 || have < need) {
        // Of a long body only the length matters.
        long at = need < 0 ? have : 0, n = recv(fd, room + at, size - 1 - at, 0);
        if (n <= 0) return have || n < 0 ? -1 : 0;
        have += n;
        if (need >= 0) continue;
        room[have] = 0;
        char *end = strstr(room, "\r\n\r\n"), *length = strcasestr(room, "\r\ncontent-length:");
        if (end) {
            if (strncmp(room, "HTTP/1.1 200", 12) || !length || length > end) return -1;
            need = end + 4 - room + atol(length + 17);
        } else if (have >= size - 1) {
            return -1;
        }
    }
    return have;
}

typedef struct {
    pthread_t thread;
    int number;
    long *latencies, count, errors;
} Worker;

// One request on a connection that is kept, or on a new one where the server has closed it.
static int once(Worker *w, int *fd, char *room, long size) {
    for (int try = 0; try < 2; try++) {
        int fresh = *fd < 0;
        if (fresh && (*fd = dial(w->number, 0)) < 0) return -1;
        give_up_in_time(*fd);
        long n = ask(*fd, "") ? 0 : answer(*fd, room, size);
        if (n > 0) return 0;
        close(*fd);
        *fd = -1;
        if (fresh || n < 0) return -1;
    }
    return -1;
}

static void *probe(void *of) {
    Worker *w = of;
    char *room = malloc(1 << 16);
    int fd = -1;
    long most = seconds / interval + 2;
    w->latencies = malloc(most * sizeof *w->latencies);
    // Connections are spread over an interval.
    double due = start + interval * (w->number * 0.618034 - (long)(w->number * 0.618034));
    for (; due < start + seconds && w->count < most; due += interval) {
        sleep_until(due);
        w->errors += now() > start + seconds + PATIENCE || once(w, &fd, room, 1 << 16);
        w->latencies[w->count++] = (now() - due) * 1e6;
    }
    return 0;
}

// In one thread, so that it takes the processor from nobody for long.
static long bulk(int connections) {
    struct pollfd *all = calloc(connections, sizeof *all);
    long *left = calloc(connections, sizeof *left), bytes = 0;
    char *room = malloc(1 << 18);
    nice(10);
    for (int i = 0; i < connections; i++) all[i] = (struct pollfd){.fd = -1, .events = POLLIN};
    while (now() < start + seconds) {
        for (int i = 0; i < connections; i++) {
            if (all[i].fd < 0 && (all[i].fd = dial(i, 0)) >= 0 && ask(all[i].fd, "")) left[i] = 0;
        }
        poll(all, connections, 100);
        for (int i = 0; i < connections; i++) {
            if (!all[i].revents) continue;
            long n = recv(all[i].fd, room, (1 << 18) - 1, MSG_DONTWAIT);
            if (n < 0 && errno == EAGAIN) continue;
            if (n > 0) {
                bytes += n;
                if (!left[i]) {
                    // A head comes whole.
                    room[n] = 0;
                    char *end = strstr(room, "\r\n\r\n"), *length = strcasestr(room, "\r\ncontent-length:");
                    left[i] = end && length && length < end ? end + 4 - room + atol(length + 17) : 0;
                    if (!left[i]) n = 0;
                }
                if (n > 0 && ((left[i] -= n) > 0 || !ask(all[i].fd, ""))) continue;
            }
            close(all[i].fd);
            all[i].fd = -1;
            left[i] = 0;
        }
    }
    return bytes;
}

static void *accept_all(void *of) {
    Worker *w = of;
    char *room = malloc(1 << 16);
    while (now() < start + seconds) {
        int fd = dial(w->number, 0);
        w->count++;
        if (fd >= 0) give_up_in_time(fd);
        if (fd < 0 || ask(fd, "Connection: close\r\n") || answer(fd, room, 1 << 16) <= 0) w->errors++;
        if (fd >= 0) close(fd);
    }
    return 0;
}

static void slow(int connections) {
    struct pollfd *all = calloc(connections, sizeof *all);
    int ready = 0, left = 0;
    for (int i = 0; i < connections; i++) {
        char first[256];
        all[i].fd = dial(i, 1);
        if (all[i].fd >= 0 && !ask(all[i].fd, "") && recv(all[i].fd, first, sizeof first, 0) > 0) ready++;
    }
    printf("ready %d\n", ready);
    fflush(stdout);
    usleep(seconds * 1e6);
    poll(all, connections, 0);
    for (int i = 0; i < connections; i++) left += all[i].fd >= 0 && !(all[i].revents & (POLLHUP | POLLERR | POLLRDHUP));
    printf("left %d\n", left);
}

static int by_value(const void *a, const void *b) {
    long x = *(const long *)a, y = *(const long *)b;
    return (x > y) - (x < y);
}

int main(int count, char **given) {
    if (count < 6) return fprintf(stderr, "usage: see the source\n"), 2;
    struct rlimit most;
    getrlimit(RLIMIT_NOFILE, &most);
    most.rlim_cur = most.rlim_max;
    setrlimit(RLIMIT_NOFILE, &most);
    signal(SIGPIPE, SIG_IGN);
    const char *mode = given[1];
    int connections = atoi(given[4]);
    port = atoi(given[2]);
    path = given[3];
    seconds = atof(given[count - 1]);
    interval = count > 6 ? atof(given[5]) / 1e3 : 1;
    start = now() + 0.02;
    if (!strcmp(mode, "slow")) return slow(connections), 0;
    if (!strcmp(mode, "bulk")) return printf("%ld\n", bulk(connections)), 0;
    void *(*work)(void *) = !strcmp(mode, "probe") ? probe : accept_all;
    Worker *all = calloc(connections, sizeof *all);
    for (int i = 0; i < connections; i++) {
        all[i].number = i;
        if (pthread_create(&all[i].thread, 0, work, &all[i])) return perror("thread"), 1;
    }
    long requests = 0, errors = 0;
    for (int i = 0; i < connections; i++) {
        pthread_join(all[i].thread, 0);
        requests += all[i].count, errors += all[i].errors;
    }
    if (work == accept_all) return printf("%ld %ld\n", requests, errors), 0;
    long *sorted = malloc((requests + 1) * sizeof *sorted), at = 0;
    for (int i = 0; i < connections; i++)
        for (long n = 0; n < all[i].count; n++) sorted[at++] = all[i].latencies[n];
    qsort(sorted, at, sizeof *sorted, by_value);
    long p50 = at ? sorted[at / 2] : 0, p99 = at ? sorted[(at - 1) * 99 / 100] : 0, worst = at ? sorted[at - 1] : 0;
    printf("%ld %ld %ld %ld %ld\n", requests, errors, p50, p99, worst);
}
