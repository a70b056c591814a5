/* main.c: larderd's command line. It reads the settings, says what is wrong with them, and hands
 * over to server.c. A password never comes this way: a URL that holds one is refused.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/conf.h"
#include "daemon/log.h"
#include "daemon/metrics.h"
#include "daemon/prepare.h"
#include "daemon/server.h"

#define FLAGS_MAX 16

static const char usage[] =
    "Usage: larderd [-c FILE] [--map NAME] [--dir DIR] [--redis URL] [--prefix PREFIX]\n"
    "               [--listen ADDR:PORT|unix:PATH] [--check]\n"
    "\n"
    "Keep one map of larder in order and in step with Redis. Runs in the foreground and logs to\n"
    "standard error.\n"
    "\n"
    "  -c, --config FILE   settings (default: " CONF_FILE_DEFAULT ", if it is there)\n"
    "      --map NAME      name of the map (map.name)\n"
    "      --dir DIR       directory of the maps (map.dir)\n"
    "      --redis URL     redis://[USER@]HOST[:PORT][/DB], rediss:// for TLS, unix:///PATH, or\n"
    "                      redis-sentinel://HOST,HOST/SERVICE (rediss-sentinel://) or\n"
    "                      redis-cluster://HOST,HOST (rediss-cluster://); no password: see\n"
    "                      redis.password_file (redis.url)\n"
    "      --prefix PREFIX in front of every key in Redis (redis.prefix)\n"
    "      --listen WHERE  ADDRESS:PORT or unix:/PATH of the status server (listen)\n"
    "      --check         print every problem of the settings and exit; 0: there is none\n"
    "      --help-settings print all settings, with their ranges and defaults\n"
    "      --help-metrics  print all figures of /metrics, as Markdown\n"
    "      --print-example print a file of settings with all defaults\n"
    "      --version, --help\n"
    "\n"
    "Signals: TERM, INT end it after a short drain; HUP reads the settings again.\n"
    "Exit codes: 0 ended by a signal, 1 failure, 2 options or settings, 3 another larderd has the\n"
    "map, 4 a later larderd took it over.\n";

enum {
    CHECK = 256,
    VERSION,
    HELP,
    HELP_SETTINGS,
    HELP_METRICS,
    PRINT_EXAMPLE,
    MAP,
    DIR,
    REDIS,
    PREFIX,
    LISTEN
};

static const struct option options[] = {{"config", required_argument, NULL, 'c'},
                                        {"map", required_argument, NULL, MAP},
                                        {"dir", required_argument, NULL, DIR},
                                        {"redis", required_argument, NULL, REDIS},
                                        {"prefix", required_argument, NULL, PREFIX},
                                        {"listen", required_argument, NULL, LISTEN},
                                        {"check", no_argument, NULL, CHECK},
                                        {"version", no_argument, NULL, VERSION},
                                        {"help", no_argument, NULL, HELP},
                                        {"help-settings", no_argument, NULL, HELP_SETTINGS},
                                        {"help-metrics", no_argument, NULL, HELP_METRICS},
                                        {"print-example", no_argument, NULL, PRINT_EXAMPLE},
                                        {NULL, 0, NULL, 0}};

static const struct {
    int option;
    const char *name, *setting;
} flag_settings[] = {{MAP, "--map", "map.name"},
                     {DIR, "--dir", "map.dir"},
                     {REDIS, "--redis", "redis.url"},
                     {PREFIX, "--prefix", "redis.prefix"},
                     {LISTEN, "--listen", "listen"}};

struct command {
    const char *file;
    bool file_given, check;
    conf_flag flags[FLAGS_MAX];
    size_t flag_count;
};

static int print_done(void)
{
    return fflush(stdout) == 0 && !ferror(stdout) ? EXIT_SUCCESS : SERVER_FAILED;
}

static bool take_flag(struct command *command, int option, const char *value)
{
    for (size_t i = 0; i < sizeof flag_settings / sizeof *flag_settings; i++) {
        if (flag_settings[i].option == option) {
            if (command->flag_count == FLAGS_MAX) {
                fputs("larderd: too many options\n", stderr);
                return false;
            }
            command->flags[command->flag_count++] =
                (conf_flag){flag_settings[i].name, flag_settings[i].setting, value};
            return true;
        }
    }
    return false; /* getopt has said what is wrong */
}

/* -1: go on; else the exit code. */
static int take_options(int argc, char **argv, struct command *command)
{
    int option;
    while ((option = getopt_long(argc, argv, "c:", options, NULL)) != -1) {
        switch (option) {
        case 'c':
            command->file = optarg;
            command->file_given = true;
            break;
        case CHECK:
            command->check = true;
            break;
        case VERSION:
            printf("larderd %s\n", larder_version_text());
            return print_done();
        case HELP:
            fputs(usage, stdout);
            return print_done();
        case HELP_SETTINGS:
            conf_print_help(stdout);
            return print_done();
        case HELP_METRICS:
            metrics_print_doc(stdout);
            return print_done();
        case PRINT_EXAMPLE:
            conf_print_example(stdout);
            return print_done();
        default:
            if (!take_flag(command, option, optarg)) {
                fputs("Try: larderd --help\n", stderr);
                return SERVER_USAGE;
            }
        }
    }
    if (optind < argc) { /* not repeated: it might be a password */
        fputs("larderd: takes no arguments besides options\nTry: larderd --help\n", stderr);
        return SERVER_USAGE;
    }
    return -1;
}

static void print_problems(const conf_problems *problems)
{
    for (size_t i = 0; i < problems->count && i < CONF_PROBLEMS_MAX; i++) {
        fprintf(stderr, "larderd: %s\n", problems->text[i] ? problems->text[i] : "no memory");
    }
    fprintf(stderr, "larderd: %zu problem%s in the settings\n", problems->count,
            problems->count == 1 ? "" : "s");
}

int main(int argc, char **argv)
{
    struct command command = {.file = CONF_FILE_DEFAULT};
    struct conf conf;
    struct prepared prepared;
    conf_problems problems = {.count = 0};
    int code = take_options(argc, argv, &command);
    if (code >= 0) {
        return code;
    }
    if (!command.check) {
        server_hold_reloads();
    }
    conf_read(&conf, command.file, command.file_given, command.flags, command.flag_count,
              &problems);
    prepare_read(&conf, command.file, &prepared, &problems);
    if (problems.count > 0) {
        print_problems(&problems);
        code = SERVER_USAGE;
    } else if (command.check) {
        puts("larderd: the settings are in order");
        code = print_done();
    } else {
        const server_source source = {command.file, command.file_given, command.flags,
                                      command.flag_count};
        log_open(2, log_level_number(conf.log_level));
        code = server_run(&conf, &prepared, &source);
    }
    conf_problems_free(&problems);
    prepare_free(&prepared);
    conf_free(&conf);
    return code;
}
