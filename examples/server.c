/* server.c: a pre-forked HTTP server whose workers share one larder. The parent listens, opens the
 * cache, and only then forks: every worker uses the handle it inherited. It then waits for signals:
 * a worker that dies is replaced, SIGTERM ends all in good order. It never serves a request itself.
 *
 *     server --log FILE [--dir DIR] [--map NAME] [--workers N] [--port PORT] [--origin-ms MS]
 *     server --upstream http://ADDRESS[:PORT] [...]   a caching reverse proxy to that origin
 */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "examples/site.h"
#include "examples/worker.h"
#include "larder.h"

#define WORKERS_MAX 64
#define DRAIN_MS 2000   /* for answers under way after SIGTERM */
#define STOP_MS 4000    /* after which a worker that is still there is killed */
#define RESPAWN_MS 1000 /* a worker that lived shorter is replaced only after so long */
#define BACKLOG 256
#define UPSTREAM_TIMEOUT_MAX_MS 590000 /* a lease holds for 600 s at most */

typedef struct server {
    const char *log_file, *dir, *map;
    unsigned workers;
    uint16_t port; /* 0: any free one */
    int64_t origin_ms;
    char upstream[64]; /* "": none */
    uint16_t upstream_port;
    int64_t upstream_timeout_ms;
    site *site;
    larder *cache;
    int listener;
    struct {
        pid_t pid;                    /* 0: none */
        int64_t started_at, start_at; /* monotonic ms */
    } worker[WORKERS_MAX];
} server;

static int64_t monotonic_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* A number from least to most; anything else ends the program. */
static long number_option(const char *name, const char *text, long least, long most)
{
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || value < least || value > most) {
        fprintf(stderr, "server: --%s: '%s' is not a number from %ld to %ld\n", name, text, least,
                most);
        exit(2);
    }
    return value;
}

static const char usage[] =
    "usage: server --log FILE|--upstream URL [OPTION ...]\n"
    "\n"
    "  --log FILE                 serve the pages that an access log asks for\n"
    "  --upstream URL             be a caching reverse proxy to http://ADDRESS[:PORT]\n"
    "  --upstream-timeout-ms MS   how long its answer may take, 1 to 590000 (30000)\n"
    "  --dir DIR                  where the map is (larder's own directory)\n"
    "  --map NAME                 the map's name (demo)\n"
    "  --workers N                processes, 1 to 64 (4)\n"
    "  --port PORT                on 127.0.0.1; 0: any free one (0)\n"
    "  --origin-ms MS             with --log: what making a page costs, 0 to 60000 (20)\n"
    "  --help                     this text\n";

/* "http://ADDRESS[:PORT]": an IPv4 address, so that no worker ever waits for a name. */
static void upstream_option(server *self, const char *url)
{
    struct in_addr address;
    const char *begin = strncmp(url, "http://", 7) == 0 ? url + 7 : "";
    size_t size = strcspn(begin, ":/");
    if (size < sizeof self->upstream)
        memcpy(self->upstream, begin, size);
    const char *rest = begin + size;
    self->upstream_port = 80;
    if (*rest == ':') {
        char port[8] = "";
        size_t digits = strspn(rest + 1, "0123456789");
        snprintf(port, sizeof port, "%.*s", (int)digits, rest + 1);
        self->upstream_port = (uint16_t)number_option("upstream", port, 1, 65535);
        rest += 1 + digits;
    }
    if (inet_pton(AF_INET, self->upstream, &address) != 1 ||
        (*rest != '\0' && strcmp(rest, "/") != 0)) {
        fprintf(stderr, "server: --upstream: '%s' is not http://ADDRESS[:PORT]\n", url);
        exit(2);
    }
}

static void options_read(server *self, int argc, char **argv)
{
    static const struct option names[] = {
        {"log", required_argument, NULL, 'l'},
        {"dir", required_argument, NULL, 'd'},
        {"map", required_argument, NULL, 'm'},
        {"workers", required_argument, NULL, 'w'},
        {"port", required_argument, NULL, 'p'},
        {"origin-ms", required_argument, NULL, 'o'},
        {"upstream", required_argument, NULL, 'u'},
        {"help", no_argument, NULL, 'h'},
        {"upstream-timeout-ms", required_argument, NULL, 't'},
        {NULL, 0, NULL, 0},
    };
    int option;
    while ((option = getopt_long(argc, argv, "", names, NULL)) != -1) {
        switch (option) {
        case 'l':
            self->log_file = optarg;
            break;
        case 'd':
            self->dir = optarg;
            break;
        case 'm':
            self->map = optarg;
            break;
        case 'w':
            self->workers = (unsigned)number_option("workers", optarg, 1, WORKERS_MAX);
            break;
        case 'p':
            self->port = (uint16_t)number_option("port", optarg, 0, 65535);
            break;
        case 'o':
            self->origin_ms = number_option("origin-ms", optarg, 0, 60000);
            break;
        case 'u':
            upstream_option(self, optarg);
            break;
        case 't':
            self->upstream_timeout_ms =
                number_option("upstream-timeout-ms", optarg, 1, UPSTREAM_TIMEOUT_MAX_MS);
            break;
        case 'h':
            fputs(usage, stdout);
            exit(0);
        default: /* getopt_long() has named it */
            fputs("server: --help lists the options\n", stderr);
            exit(2);
        }
    }
    if (optind != argc) {
        fprintf(stderr, "server: '%s' is no option; --help lists them\n", argv[optind]);
        exit(2);
    }
    if ((self->log_file == NULL) == (self->upstream[0] == '\0')) {
        fputs("server: either --log or --upstream is needed; --help lists the options\n", stderr);
        exit(2);
    }
}

/* The one listening socket; self->port becomes the port that it got. */
static int server_listen(server *self)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(self->port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int on = 1;
    self->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (self->listener < 0 ||
        setsockopt(self->listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
        /* inherited by each connection: an answer is written at once, nothing is gained by waiting
         */
        setsockopt(self->listener, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0 ||
        bind(self->listener, (struct sockaddr *)&address, sizeof address) != 0 ||
        listen(self->listener, BACKLOG) != 0 ||
        getsockname(self->listener, (struct sockaddr *)&address, &size) != 0) {
        fprintf(stderr, "server: cannot listen on 127.0.0.1:%u: %s\n", self->port, strerror(errno));
        return -1;
    }
    self->port = ntohs(address.sin_port);
    return 0;
}

static int server_open_cache(server *self)
{
    larder_options options = {.dir = self->dir};
    int opened = larder_open(self->map, &options, &self->cache);
    if (opened == LARDER_OK)
        return 0;
    fprintf(stderr, "server: cannot open the map %s: %s: %s\n", self->map, larder_strerror(opened),
            larder_last_error());
    return -1;
}

static void worker_start(server *self, unsigned index)
{
    pid_t parent = getpid();
    int64_t now = monotonic_ms();
    self->worker[index].started_at = now;
    pid_t pid = fork();
    if (pid == 0) {
        worker_settings settings = {.site = self->site,
                                    .cache = self->cache,
                                    .listener = self->listener,
                                    .number = index + 1,
                                    .origin_ms = self->origin_ms,
                                    .upstream = self->upstream[0] == '\0' ? NULL : self->upstream,
                                    .upstream_port = self->upstream_port,
                                    .upstream_timeout_ms = self->upstream_timeout_ms,
                                    .drain_ms = DRAIN_MS};
        /* A worker never outlives its parent, however that ends. */
        if (prctl(PR_SET_PDEATHSIG, SIGTERM) != 0 || getppid() != parent)
            _exit(EXIT_FAILURE);
        int status = worker_run(&settings);
        larder_close(&self->cache);
        site_free(&self->site);
        exit(status);
    }
    if (pid < 0) {
        fprintf(stderr, "server: cannot fork worker %u: %s\n", index + 1, strerror(errno));
        self->worker[index].start_at = now + RESPAWN_MS;
        pid = 0;
    }
    self->worker[index].pid = pid;
}

/* Collect the dead. */
static void workers_reap(server *self, bool stopping)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        unsigned index = 0;
        while (index < self->workers && self->worker[index].pid != pid)
            index++;
        if (index == self->workers)
            continue;
        self->worker[index].pid = 0;
        int64_t now = monotonic_ms();
        bool short_lived = now - self->worker[index].started_at < RESPAWN_MS;
        self->worker[index].start_at = short_lived ? now + RESPAWN_MS : now;
        if (stopping)
            continue;
        if (WIFSIGNALED(status))
            fprintf(stderr, "server: worker %u (pid %ld) was killed by signal %d; replacing it\n",
                    index + 1, (long)pid, WTERMSIG(status));
        else
            fprintf(stderr, "server: worker %u (pid %ld) ended with status %d; replacing it\n",
                    index + 1, (long)pid, WEXITSTATUS(status));
    }
}

/* Start what is missing and due. Returns the ms until the next is due, or -1: all are there. */
static int64_t workers_fill(server *self)
{
    int64_t now = monotonic_ms(), wait = -1;
    for (unsigned i = 0; i < self->workers; i++) {
        if (self->worker[i].pid != 0)
            continue;
        int64_t left = self->worker[i].start_at - now;
        if (left <= 0)
            worker_start(self, i);
        if (self->worker[i].pid == 0) {
            left = self->worker[i].start_at - now;
            wait = wait < 0 || left < wait ? left : wait;
        }
    }
    return wait;
}

static bool workers_signal(const server *self, int signal_number)
{
    bool any = false;
    for (unsigned i = 0; i < self->workers; i++)
        if (self->worker[i].pid != 0 && kill(self->worker[i].pid, signal_number) == 0)
            any = true;
    return any;
}

/* The next of these signals within wait_ms (-1: however long that takes), or 0. */
static int signal_wait(const sigset_t *signals, int64_t wait_ms)
{
    struct timespec wait = {.tv_sec = wait_ms / 1000, .tv_nsec = (wait_ms % 1000) * 1000000};
    int got = sigtimedwait(signals, NULL, wait_ms < 0 ? NULL : &wait);
    return got < 0 ? 0 : got;
}

static void server_run(server *self, const sigset_t *signals)
{
    int got = 0;
    while (got != SIGTERM && got != SIGINT) {
        int64_t wait_ms = workers_fill(self);
        got = signal_wait(signals, wait_ms);
        if (got == SIGCHLD)
            workers_reap(self, false);
    }
    int64_t deadline = monotonic_ms() + STOP_MS;
    workers_signal(self, SIGTERM);
    for (;;) {
        workers_reap(self, true);
        if (!workers_signal(self, 0))
            break;
        int64_t left = deadline - monotonic_ms();
        if (left <= 0) {
            workers_signal(self, SIGKILL);
            deadline = INT64_MAX; /* nothing survives that: the next SIGCHLD is theirs */
            left = 100;
        }
        signal_wait(signals, left);
    }
}

int main(int argc, char **argv)
{
    server self = {
        .map = "demo", .workers = 4, .origin_ms = 20, .upstream_timeout_ms = 30000, .listener = -1};
    int status = EXIT_FAILURE;
    char error[512];
    sigset_t signals;
    options_read(&self, argc, argv);
    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGCHLD);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    if (self.log_file != NULL && site_load(self.log_file, &self.site, error, sizeof error) != 0) {
        fprintf(stderr, "server: %s\n", error);
        goto out;
    }
    if (server_open_cache(&self) != 0 || server_listen(&self) != 0)
        goto out;
    printf("listening on 127.0.0.1:%u\n", self.port);
    fflush(stdout);
    server_run(&self, &signals);
    status = EXIT_SUCCESS;
out:
    if (self.listener >= 0)
        close(self.listener);
    larder_close(&self.cache);
    site_free(&self.site);
    return status;
}
