# common.bash: for the tests of mod_socache_larder: the real httpd with a configuration of its own in
# a directory of the test's, on a free loopback port, started and stopped by its pid. As root, its
# children run as www-data, who shares the directory of the maps.
set -u
builddir=${BUILDDIR:?the build directory}
PATH=$PATH:/usr/sbin # where Debian has it
httpd=$(command -v apache2 || command -v httpd) || { echo "httpd (apache2-bin) is not there" && exit 77; }
modules=$(apxs -q LIBEXECDIR 2>/dev/null) || { echo "apxs (apache2-dev) is not there" && exit 77; }
module=$builddir/modules/apache/.libs/mod_socache_larder.so
[ "${SANITIZED:-no}" = no ] || { echo "httpd lacks the sanitizer's runtime" && exit 77; }
[ -e "$module" ] || { echo "mod_socache_larder is not built" && exit 77; }
command -v openssl >/dev/null || { echo "openssl is not there" && exit 77; }

scratch=$(mktemp -d "${LARDER_TEST_DIR:-/dev/shm}/apache.XXXXXX") || exit 1
# The directory that the test was given is root's own: httpd's children have to pass through it.
[ "$(id -u)" != 0 ] || [ -z "${LARDER_TEST_DIR:-}" ] || chmod o+x "$LARDER_TEST_DIR"
chmod 0755 "$scratch"
maps=$scratch/maps
mkdir -p "$scratch/site" "$maps"
chmod 0700 "$maps"
user_lines=''
if [ "$(id -u)" = 0 ]; then
    user_lines=$'User www-data\nGroup www-data'
    chgrp www-data "$maps" && chmod 2770 "$maps"
fi
pids=()       # of everything that was started and not stopped
httpd_pid=''
failures=0

fail() { # WORDS
    echo "FAILED: $*"
    failures=$((failures + 1))
}

check() { # WHAT COMMAND...: the command has to succeed
    local what=$1
    shift
    "$@" || fail "$what"
}

contains() { grep -qE -- "$2" <<<"$1"; } # TEXT PATTERN

# Look at a condition until it holds; the deadline is for machines that are busy.
wait_for() { # COMMAND...
    local end=$((SECONDS + 60))
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$end" ] || return 1
        sleep 0.05
    done
}

gone() { ! kill -0 "$1" 2>/dev/null; }

cleanup() {
    local pid
    for pid in ${httpd_pid:+"$httpd_pid"} ${pids[@]+"${pids[@]}"}; do
        kill -CONT "$pid" 2>/dev/null
        kill "$pid" 2>/dev/null && { wait_for gone "$pid" || kill -9 "$pid"; }
    done
    if [ "$failures" != 0 ]; then
        tail -n 40 "$scratch/error.log" 2>/dev/null
    fi
    [ -n "${LARDER_TEST_KEEP:-}" ] || rm -rf "$scratch"
}
trap cleanup EXIT

write_page() { echo "$2" >"$scratch/site/$1"; } # NAME TEXT

free_port() { # one that nobody listens on; a collision is tried again by start_httpd
    local port
    for _ in {1..200}; do
        port=$((20000 + RANDOM % 10000))
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port" && return; }
    done
}

load() { # NAME...: modules that are not linked into this httpd
    local name
    for name; do
        [ ! -e "$modules/mod_$name.so" ] || echo "LoadModule ${name}_module $modules/mod_$name.so"
    done
}

# The configuration up to what a test adds. mpm is prefork or event.
write_config() { # MPM EXTRA-LINES
    local children
    if [ "$1" = prefork ]; then
        children=$'StartServers 4\nMinSpareServers 4\nMaxSpareServers 8\nMaxRequestWorkers 8'
    else
        children=$'StartServers 2\nServerLimit 4\nThreadsPerChild 4\nMinSpareThreads 8\nMaxSpareThreads 16\nMaxRequestWorkers 16'
    fi
    cat >"$scratch/httpd.conf" <<CONF
ServerRoot $scratch
ServerName localhost
PidFile $scratch/httpd.pid
DefaultRuntimeDir $scratch
Listen 127.0.0.1:$port
ErrorLog $scratch/error.log
LogLevel info
$(load "mpm_$1" authz_core authz_host cache cache_socache headers status)
LoadModule socache_larder_module $module
$user_lines
$children
KeepAlive On
KeepAliveTimeout 60
GracefulShutdownTimeout 5
DocumentRoot $scratch/site
LogFormat "%P %U" pids
CustomLog $scratch/access.log pids
CacheEnable socache /
CacheDisable /server-status
CacheDisable /probe
CacheHeader on
<Directory $scratch/site>
    Header set Cache-Control max-age=3600
</Directory>
<Location /server-status>
    SetHandler server-status
</Location>
$2
CONF
}

# ---- TLS and passwords: the port tls_port, the folder private

make_certificate() {
    openssl req -x509 -newkey rsa:2048 -nodes -keyout "$scratch/key.pem" -out "$scratch/cert.pem" -days 2 \
        -subj /CN=localhost >"$scratch/said" 2>&1 || { cat "$scratch/said" && exit 1; }
}

secure_config() { # [THE CACHE OF TLS SESSIONS]
    cat <<CONF
$(load socache_shmcb ssl auth_basic authn_core authn_file authn_socache authz_user)
AuthnCacheSOCache larder:authn(dir=$maps,size=16M)
CacheDisable /private
<Location /private>
    AuthType Basic
    AuthName private
    AuthBasicProvider socache file
    AuthnCacheProvideFor file
    AuthUserFile $scratch/users
    Require valid-user
</Location>
Listen 127.0.0.1:$tls_port
SSLSessionCache ${1:-larder:tls(dir=$maps,size=16M)}
SSLSessionCacheTimeout 300
<VirtualHost 127.0.0.1:$tls_port>
    SSLEngine on
    SSLCertificateFile $scratch/cert.pem
    SSLCertificateKeyFile $scratch/key.pem
    SSLProtocol TLSv1.2
    SSLSessionTickets off
    CacheDisable /
</VirtualHost>
CONF
}

tls() { # OPENSSL'S ARGUMENTS...: one request
    printf 'GET /page HTTP/1.0\r\nHost: localhost\r\n\r\n' |
        timeout 30 openssl s_client -connect "127.0.0.1:$tls_port" -tls1_2 -ign_eof "$@" 2>/dev/null
}

as_somebody() { get /private/page "Authorization: Basic $(printf 'somebody:%s' "$1" | openssl base64)"; } # PASSWORD

start_httpd() {
    rm -f "$scratch/httpd.pid"
    LD_LIBRARY_PATH=$builddir/.libs "$httpd" -f "$scratch/httpd.conf" -k start >"$scratch/said" 2>&1 || {
        cat "$scratch/said" "$scratch/error.log"
        fail "httpd does not start"
        exit 1
    }
    wait_for test -s "$scratch/httpd.pid" || { fail "httpd wrote no pid" && exit 1; }
    httpd_pid=$(cat "$scratch/httpd.pid")
    wait_for get /server-status?auto || { fail "httpd does not answer" && exit 1; }
}

stop_httpd() {
    kill "$httpd_pid"
    wait_for gone "$httpd_pid" || fail "httpd does not stop"
    httpd_pid=''
}

# New children, the same parent.
graceful() {
    local generation
    generation=$(grep -c 'resuming normal operations' "$scratch/error.log")
    kill -USR1 "$httpd_pid"
    wait_for resumed "$generation" || fail "httpd does not restart"
    wait_for get /server-status?auto || fail "httpd does not answer after a graceful restart"
}
resumed() { [ "$(grep -c 'resuming normal operations' "$scratch/error.log")" -gt "$1" ]; }

# One request on a connection of its own; the whole response.
get() { # PATH [HEADER]
    local fd result=0
    exec {fd}<>"/dev/tcp/127.0.0.1/$port" || return 1
    printf 'GET %s HTTP/1.0\r\nHost: localhost\r\n%s\r\n' "$1" "${2:+$2$'\r\n'}" >&"$fd"
    timeout 30 cat <&"$fd" | tr -d '\0' || result=1
    exec {fd}>&-
    return $result
}

# From the cache, and not: by what mod_cache says.
is_hit() { contains "$(get "$1")" '^X-Cache: HIT'; }
is_miss() { contains "$(get "$1")" '^X-Cache: MISS'; }

# Keep COUNT connections open at once, each with a request for the page on it, so that as many
# children (or threads) have one each. Sets hits.
hits=0
ask_at_once() { # COUNT PATH
    local fds=() fd line
    hits=0
    for ((i = 0; i < $1; i++)); do
        exec {fd}<>"/dev/tcp/127.0.0.1/$port" || return 1
        fds+=("$fd")
        printf 'GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n' "$2" >&"$fd"
    done
    for fd in "${fds[@]}"; do
        while IFS= read -r -t 30 -u "$fd" line && [ "$line" != $'\r' ]; do
            [[ $line != 'X-Cache: HIT'* ]] || hits=$((hits + 1))
        done
    done
    for fd in "${fds[@]}"; do
        exec {fd}>&-
    done
}

children_of() { # PATH: how many processes have answered for it
    awk -v path="$1" '$2 == path { print $1 }' "$scratch/access.log" | sort -u | wc -l
}

finish() {
    [ -z "$httpd_pid" ] || stop_httpd
    if [ "$failures" = 0 ]; then
        echo "$1: ok"
        exit 0
    fi
    exit 1
}
