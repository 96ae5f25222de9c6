/* The upper bound for the comparison of servers: an event loop that parses nothing.
 *
 *   gcc -O2 -o limit limit.c && ./limit PORT FILE [close] [WORKERS]
 *
 * Each blank line counts as the end of a request, and the response to every request is FILE: no
 * parsing, no path, no open, no clock, no limits, no timeouts. A blank line that is split across two
 * reads is missed, but a load generator that waits for responses never sends one. Up to 64 KiB, head
 * and file are sent with one send; a larger file with sendfile. There is one send for each response,
 * pipelined or not: a server that batches pipelined responses may be faster. With `close`, the
 * connection closes after the response. With WORKERS, that many processes share the port.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SMALL = 64 * 1024, EVENTS = 512 };

/* The response: `lead` bytes from memory, the rest of `len` from the file. */
static char memory[512 + SMALL];
static size_t head, lead, len;
static int file, closes;

struct peer {
    int fd;
    unsigned owed;  /* requests without a response */
    size_t sent;    /* bytes sent of the current response */
};

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void prepare(const char *path) {
    struct stat stat;
    if ((file = open(path, O_RDONLY | O_CLOEXEC)) < 0 || fstat(file, &stat)) fail(path);
    head = lead = (size_t)snprintf(memory, 512,
        "HTTP/1.1 200 OK\r\nServer: limit\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
        "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Type: text/html\r\n"
        "Content-Length: %lld\r\n%s\r\n", (long long)stat.st_size, closes ? "Connection: close\r\n" : "");
    len = head + (size_t)stat.st_size;
    if (stat.st_size <= SMALL) {
        if (pread(file, memory + head, (size_t)stat.st_size, 0) != stat.st_size) fail("read");
        lead = len;
    }
}

/* Sends the responses that are owed, until the socket is full. Returns 0 if the connection is broken. */
static int answer(struct peer *p) {
    while (p->owed) {
        ssize_t n;
        if (p->sent < lead) {
            n = send(p->fd, memory + p->sent, lead - p->sent, MSG_NOSIGNAL | (lead < len ? MSG_MORE : 0));
        } else {
            off_t at = (off_t)(p->sent - head);
            n = sendfile(p->fd, file, &at, len - p->sent);
        }
        if (n < 0) return errno == EAGAIN;
        if (n == 0) return 0;
        p->sent += (size_t)n;
        if (p->sent < len) continue;
        p->sent = 0;
        p->owed--;
        if (closes && !p->owed) return 0;
    }
    return 1;
}

/* Reads once and counts requests. Returns 0 at the end of the connection. */
static int receive(struct peer *p) {
    static char bytes[SMALL];
    ssize_t n = recv(p->fd, bytes, sizeof bytes, 0);
    if (n <= 0) return n < 0 && errno == EAGAIN;
    const char *end = bytes + n;
    for (const char *at = bytes; (at = memmem(at, (size_t)(end - at), "\r\n\r\n", 4)); at += 4) p->owed++;
    return 1;
}

static void welcome(int epoll, int listener) {
    int fd, on = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct peer *p = calloc(1, sizeof *p);
        if (!p) fail("calloc");
        p->fd = fd;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct epoll_event both = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = p};
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &both)) fail("epoll_ctl");
    }
}

int main(int argc, char **argv) {
    int workers = 1, on = 1;
    if (argc < 3) {
        fprintf(stderr, "usage: %s PORT FILE [close] [WORKERS]\n", argv[0]);
        return 2;
    }
    for (int i = 3; i < argc; i++) {
        if (!strcmp(argv[i], "close")) closes = 1;
        else workers = atoi(argv[i]);
    }
    signal(SIGPIPE, SIG_IGN);
    prepare(argv[2]);
    while (--workers > 0) {
        if (fork() == 0) {
            prctl(PR_SET_PDEATHSIG, SIGTERM);
            break;
        }
    }

    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(listener, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(argv[1]))};
    here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener, (struct sockaddr *)&here, sizeof here) || listen(listener, 4096)) fail("listen");

    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event arrivals = {.events = EPOLLIN, .data.ptr = NULL}, events[EVENTS];
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &arrivals);
    for (;;) {
        int n = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < n; i++) {
            struct peer *p = events[i].data.ptr;
            if (!p) {
                welcome(epoll, listener);
                continue;
            }
            int open = 1;
            if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) open = receive(p);
            if (open) open = answer(p);
            if (!open) {
                close(p->fd);
                free(p);
            }
        }
    }
}
