#!/bin/sh
# Starts or stops a machine of the sandbox: an OpenSSH server of its own, on a port of loopback.
# usage: machine.sh start DIRECTORY NAME MADE_AS DISK_GIB
#        machine.sh stop DIRECTORY NAME
set -eu
verb=$1 dir=$2 name=$3
running() { [ -s "$dir/pid" ] && kill -0 "$(cat "$dir/pid")" 2>/dev/null; }
# Whatever runs with the machine's settings, also where nobody lived to note its number; not the search for it.
started() { grep -ls -- "$dir/sshd_confi[g]" /proc/[0-9]*/cmdline | cut -d/ -f3; }
end() {
    tries=0
    while pids=$(started) && [ -n "$pids" ] && [ $tries -lt 100 ]; do
        # shellcheck disable=SC2086 # they are numbers with spaces between them
        kill $pids 2>/dev/null || true
        sleep 0.05
        tries=$((tries + 1))
    done
}

case $verb in
start)
    # It is there: whoever made it did not live to say so.
    if running && [ -s "$dir/port" ]; then exit 0; fi
    umask 077
    mkdir -p "$dir"
    echo "$4" >"$dir/made_as"
    echo "$5" >"$dir/disk_gib"
    cp owner "$dir/owner"
    case $name in slow*) sleep 30 ;; esac
    end
    rm -f "$dir/pid" "$dir/port"
    if ! [ -s "$dir/host_key" ]; then ssh-keygen -q -t ed25519 -N '' -C '' -f "$dir/host_key"; fi
    cp authorized_key "$dir/authorized_keys"
    case $name in fail-login*) : >"$dir/authorized_keys" ;; esac
    if [ "$(id -u)" = 0 ]; then mkdir -p /run/sshd && chmod 755 /run/sshd; fi
    cat >"$dir/sshd_config" <<CONFIG
ListenAddress 127.0.0.1
HostKey $dir/host_key
PidFile $dir/pid
AuthorizedKeysFile $dir/authorized_keys
AuthenticationMethods publickey
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
AllowTcpForwarding no
X11Forwarding no
PrintMotd no
CONFIG
    id -un >"$dir/user"
    # shellcheck disable=SC2013 # they are numbers with spaces between them
    for port in $(cat ports); do
        case $name in
        fail-ssh*)
            echo "$port" >"$dir/port"
            break
            ;;
        esac
        : >"$dir/log"
        # Nothing of the run's environment is the machine's.
        env -i PATH="$PATH" "$(cat sshd)" -f "$dir/sshd_config" -p "$port" -E "$dir/log"
        tries=0
        until running || grep -q 'Cannot bind' "$dir/log" || [ $tries -ge 100 ]; do
            sleep 0.05
            tries=$((tries + 1))
        done
        if running; then
            echo "$port" >"$dir/port"
            break
        fi
    done
    if ! [ -s "$dir/port" ]; then
        echo "the machine did not start: $(tail -n 1 "$dir/log")" >&2
        exit 1
    fi
    case $name in
    fail-host-key*)
        rm -f "$dir/other_key" "$dir/other_key.pub"
        ssh-keygen -q -t ed25519 -N '' -C '' -f "$dir/other_key"
        mv "$dir/other_key.pub" "$dir/host_key.pub"
        ;;
    drift*)
        # Somebody changes it, once.
        case $4 in run_*) echo "changed by hand" >"$dir/made_as" ;; esac
        ;;
    esac
    ;;
stop)
    end
    # What it was made as, and with, is asked for again by whatever takes its place; whoever made it removes the rest.
    find "$dir" -mindepth 1 ! -name made_as ! -name disk_gib ! -name owner -delete 2>/dev/null || true
    ;;
esac
