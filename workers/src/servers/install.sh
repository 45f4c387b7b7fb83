# Installs Docker from the distribution where it is missing, starts it, and lets whoever runs this work with it. What was said
# on the way is said in the end, the last of it.
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }
has() { command -v "$1" >/dev/null 2>&1; }
install_docker() {
    set -e
    if ! as_root true; then
        echo "sudo -n does not let $(id -un) become root: allow that, or install Docker yourself"
        return 1
    fi
    if has docker; then
        echo "Docker is there, and is started"
    elif has apt-get; then
        as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120 update
        as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120 install -y docker.io
    elif has dnf; then
        as_root dnf -q -y install docker || as_root dnf -q -y install moby-engine
    elif has zypper; then
        as_root zypper -n -q install docker
    elif has apk; then
        as_root apk add -q docker
    else
        echo "there is no apt-get, dnf, zypper or apk: install Docker yourself"
        return 1
    fi
    if has systemctl; then
        as_root systemctl enable --now docker
    elif has rc-update; then
        as_root rc-update add docker
        as_root rc-service docker start
    else
        as_root service docker start
    fi
    if [ "$(id -u)" != 0 ]; then as_root usermod -aG docker "$(id -un)"; fi
    echo "done"
}
said=$(install_docker 2>&1)
status=$?
printf '%s\n' "$said" | tail -c 2000
exit $status
