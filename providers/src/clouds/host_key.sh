#!/bin/sh
# The host key a machine began with was in its user data. This gives it one of its own.
# usage: gantry-host-key prepare   makes it, and says its public half
#        gantry-host-key take      uses it from now on
set -eu
own=/etc/ssh/gantry_own_key used=/etc/ssh/ssh_host_ed25519_key done=/etc/ssh/gantry_own_key.taken
case ${1-} in
prepare)
    if [ -e "$done" ]; then
        cat "$used.pub"
        exit
    fi
    umask 077
    [ -s "$own.pub" ] || { rm -f "$own" && ssh-keygen -q -t ed25519 -N '' -C '' -f "$own"; }
    cat "$own.pub"
    ;;
take)
    if [ -s "$own" ]; then
        cp -f "$own.pub" "$used.pub"
        : >"$done"
        mv -f "$own" "$used"
        rm -f "$own.pub"
    fi
    [ -e "$done" ]
    systemctl restart ssh 2>/dev/null || systemctl restart sshd
    ;;
*) exit 2 ;;
esac
