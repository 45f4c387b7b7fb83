# shellcheck shell=bash
# What the scripts share. Sourced, never run; leaves the shell in the checkout's root.
set -euo pipefail
unset CDPATH
: "${HOME:=$(getent passwd "$(id -u)" | cut -d: -f6)}" "${PATH:=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin}"
export HOME
root=$(cd -P "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
cd "$root"
case ":$PATH:" in *:"${CARGO_HOME:-$HOME/.cargo}/bin":*) ;; *) PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin ;; esac
export PATH
# Node trusts a list of its own; a company's authority stands in the machine's.
authorities=/etc/ssl/certs/ca-certificates.crt
[ ! -e $authorities ] || export NODE_EXTRA_CA_CERTS="${NODE_EXTRA_CA_CERTS:-$authorities}"

say() { printf '%s\n' "$*" >&2; }
die() {
    say "${0##*/}: $*"
    exit 1
}

# The directory of the newest PostgreSQL server (15 or later), or of the version asked for.
postgres_bin() {
    local bin
    for bin in $(printf '%s\n' /usr/lib/postgresql/*/bin /usr/pgsql-*/bin | sort -rV) \
        "$(dirname "$(command -v postgres || echo /none/postgres)")"; do
        [ -x "$bin/initdb" ] || continue
        local version
        version=$("$bin/postgres" -V | sed -E 's/^[^0-9]*([0-9]+).*/\1/')
        [ "$version" -ge 15 ] && [ "${1:-$version}" = "$version" ] && echo "$bin" && return
    done
    return 1
}

# The Redis (7 or later) or Valkey server.
redis_bin() {
    local name major
    for name in redis-server valkey-server; do
        command -v "$name" >/dev/null || continue
        major=$("$name" --version | sed -E 's/.*v=([0-9]+).*/\1/')
        [ "$major" -ge 7 ] && command -v "$name" && return
    done
    return 1
}

# A TCP port on 127.0.0.1 nobody listens on, below the range the kernel hands out by itself.
port_is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
free_port() {
    local port
    while port=$((20000 + (RANDOM * 32768 + RANDOM) % 12000)); do
        port_is_free "$port" && echo "$port" && return
    done
}

# Packages of PyPI and, after --, of npm, each version pinned, in a directory of their own: DIR/bin, DIR/node_modules.
pinned_tools() {
    local dir=$1 pins="${*:2}" python=() npm=()
    shift
    while [ $# -gt 0 ] && [ "$1" != -- ]; do python+=("$1") && shift; done
    npm=("${@:2}")
    [ "$(cat "$dir/pins" 2>/dev/null)" != "$pins" ] || return 0
    [ ${#npm[@]} = 0 ] || command -v npm >/dev/null || die "no Node: install version 18 or later"
    rm -rf "$dir"
    python3 -m venv "$dir"
    "$dir/bin/pip" -q install --disable-pip-version-check "${python[@]}"
    [ ${#npm[@]} = 0 ] || npm install --silent --no-fund --no-audit --prefix "$dir" "${npm[@]}"
    printf '%s\n' "$pins" >"$dir/pins"
}

# Machines of the sandbox go on when their worker ends.
end_machines() { # end_machines STATE
    local pid
    for pid in "$1"/provisioning/machines/*/pid; do
        if [ -s "$pid" ]; then kill "$(cat "$pid")" 2>/dev/null || true; fi
    done
}

# The whole platform, for as long as the script runs, with its data in a directory of its own, which is removed at the
# end. Sets GANTRY_URL and GANTRY_API_KEY.
with_platform() {
    platform_state=$1
    scripts/servers remove "$1"
    rm -f "$1.env" # of one that was killed
    GANTRY_LOG=${GANTRY_LOG:-warn} GANTRY_DRAIN_SECONDS=2 scripts/dev --state "$1" >"$1.log" 2>&1 &
    platform=$!
    trap without_platform EXIT
    until [ -s "$1.env" ]; do
        kill -0 "$platform" 2>/dev/null || { tail -n 20 "$1.log" >&2 && die "the platform does not start, see $1.log"; }
        sleep 0.2
    done
    set -a
    # shellcheck source=/dev/null
    . "$1.env"
    set +a
}
without_platform() {
    kill -TERM "$platform" 2>/dev/null || true
    wait "$platform" || true
    scripts/servers remove "$platform_state"
    rm -rf "${platform_state:?}"
}
