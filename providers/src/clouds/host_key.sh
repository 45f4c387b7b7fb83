#!/bin/sh
# The host key a machine began with was in its user data. This gives it one of its own.
# usage: gantry-host-key prepare   makes it, and says its public half
#        gantry-host-key take      uses it from now on
set -eu
where=${GANTRY_SSH_DIRECTORY:-/etc/ssh}
own=$where/gantry_own_key used=$where/ssh_host_ed25519_key taken=$where/gantry_own_key.taken
case ${1-} in
prepare)
    if [ -e "$taken" ]; then
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
        : >"$taken"
        mv -f "$own" "$used"
        rm -f "$own.pub"
    fi
    [ -e "$taken" ]
    systemctl restart ssh 2>/dev/null || systemctl restart sshd
    ;;
*) exit 2 ;;
esac
