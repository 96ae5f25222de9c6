// A file system that takes its time, for beside.py: the protocol of FUSE by hand. Needs root.
//
//   slowfs MOUNTPOINT OPEN_MS READ_MS
//
// It has two files: `slow` (4 MiB; each read, of at most 128 KiB, takes READ_MS) and `slowopen` (1 KiB; looking up its
// name takes OPEN_MS, each time). Prints "mounted", and ends when it is unmounted.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ROOT = 1, SLOW = 2, SLOW_OPEN = 3, LARGEST_READ = 128 << 10 };
static const long sizes[] = {[SLOW] = 4 << 20, [SLOW_OPEN] = 1024};

static int device;

typedef struct {
    long delay_ms;
    struct fuse_out_header head;
    char body[LARGEST_READ];
} Reply;

static void send_reply(Reply *reply) {
    // The one who asked may be gone meanwhile.
    if (write(device, &reply->head, reply->head.len) < 0 && errno != ENOENT && errno != EINTR) perror("slowfs: write");
    free(reply);
}

static void *send_late(void *reply) {
    usleep(((Reply *)reply)->delay_ms * 1000);
    send_reply(reply);
    return 0;
}

// Replies with `len` bytes of `body`, or of anything where that is null.
static void answer(unsigned long unique, int error, const void *body, long len, long delay_ms) {
    Reply *reply = malloc(sizeof *reply);
    reply->delay_ms = delay_ms;
    reply->head = (struct fuse_out_header){.len = sizeof reply->head + len, .error = error, .unique = unique};
    if (body) memcpy(reply->body, body, len);
    else memset(reply->body, 's', len);
    if (!delay_ms) return send_reply(reply);
    pthread_t thread;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, 64 << 10);
    if (pthread_create(&thread, &attributes, send_late, reply)) send_reply(reply);
}

static struct fuse_attr attributes_of(unsigned long node) {
    int is_root = node == ROOT;
    return (struct fuse_attr){
        .ino = node,
        .mode = is_root ? S_IFDIR | 0755 : S_IFREG | 0644,
        .nlink = 1,
        .size = is_root ? 0 : sizes[node],
        .mtime = 1000000000,
        .ctime = 1000000000,
        .atime = 1000000000,
        .blksize = 4096,
    };
}

int main(int count, char **given) {
    if (count != 4) return fprintf(stderr, "usage: slowfs MOUNTPOINT OPEN_MS READ_MS\n"), 2;
    long open_ms = atol(given[2]), read_ms = atol(given[3]);
    char options[128];
    device = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", device);
    if (device < 0 || mount("slowfs", given[1], "fuse.slowfs", MS_NOSUID | MS_NODEV, options)) {
        return perror("slowfs: mount"), 1;
    }
    printf("mounted\n");
    fflush(stdout);
    static char request[1 << 20];
    for (;;) {
        if (read(device, request, sizeof request) < 0) {
            if (errno == EINTR || errno == EAGAIN || errno == ENOENT) continue;
            return errno != ENODEV;
        }
        struct fuse_in_header *head = (void *)request;
        void *body = request + sizeof *head;
        unsigned long unique = head->unique, node = head->nodeid;
        switch (head->opcode) {
        case FUSE_INIT: {
            struct fuse_init_in *wanted = body;
            struct fuse_init_out init = {.major = 7, .minor = wanted->minor < 31 ? wanted->minor : 31, .flags = FUSE_ASYNC_READ};
            init.max_readahead = init.max_write = LARGEST_READ;
            init.max_background = 64;
            answer(unique, 0, &init, sizeof init, 0);
            break;
        }
        case FUSE_LOOKUP: {
            const char *name = body;
            node = !strcmp(name, "slow") ? SLOW : !strcmp(name, "slowopen") ? SLOW_OPEN : 0;
            // Valid for no time, so that it is looked up again for each open.
            struct fuse_entry_out entry = {.nodeid = node};
            if (node) entry.attr = attributes_of(node);
            answer(unique, node ? 0 : -ENOENT, &entry, node ? sizeof entry : 0, node == SLOW_OPEN ? open_ms : 0);
            break;
        }
        case FUSE_GETATTR: {
            struct fuse_attr_out attributes = {.attr_valid = 1, .attr = attributes_of(node)};
            answer(unique, 0, &attributes, sizeof attributes, 0);
            break;
        }
        case FUSE_OPEN:
        case FUSE_OPENDIR: {
            struct fuse_open_out opened = {0};
            answer(unique, 0, &opened, sizeof opened, 0);
            break;
        }
        case FUSE_READ: {
            struct fuse_read_in *wanted = body;
            long left = sizes[node] - (long)wanted->offset;
            long len = left < 0 ? 0 : left < wanted->size ? left : wanted->size;
            answer(unique, 0, 0, len < LARGEST_READ ? len : LARGEST_READ, read_ms);
            break;
        }
        case FUSE_READDIR:
        case FUSE_STATFS:
        case FUSE_RELEASE:
        case FUSE_RELEASEDIR:
        case FUSE_FLUSH:
            answer(unique, 0, 0, 0, 0);
            break;
        case FUSE_FORGET:
        case FUSE_BATCH_FORGET:
        case FUSE_INTERRUPT:
            break;
        default:
            answer(unique, -ENOSYS, 0, 0, 0);
        }
    }
}
