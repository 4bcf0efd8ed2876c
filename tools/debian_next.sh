#!/usr/bin/env bash
# Run a command in the next release of Debian, which has newer versions of Python and Slurm than this machine.
#
#     tools/debian_next.sh [--dir DIR] [--slurm] COMMAND [ARGUMENT...]
#
# For example, the tests with Python 3.15, from the root of a checkout:
#
#     tools/debian_next.sh make test PYTHON=/usr/bin/python3.15 VENV=.venv-3.15 PYTEST_ARGS="-m 'not packaging'"
#
# and those on Slurm, with the Slurm of that release:
#
#     tools/debian_next.sh --slurm make .venv-3.14/installed-test PYTHON=/usr/bin/python3.14 VENV=.venv-3.14
#     tools/debian_next.sh --slurm .venv-3.14/bin/python -m pytest tests/slurm
#
# The release is installed in DIR by debootstrap, from the archive of Debian; the next run finds it there and uses it
# again. To have its packages renewed, remove DIR. --slurm adds Slurm, Munge and Open MPI, also to a DIR that is there.
#
# COMMAND runs as root, in the same directory as here: the checkout has the same path inside. Everything else that it
# sees is of DIR, except /proc, /sys, /dev, /tmp (an empty one, gone afterwards), the network, and what pip and uv need
# to reach their index as they do here: environment variables, pip's configuration, certificates, directories of wheels.
# Processes and the network are those of this machine. All is mounted in a mount namespace of the command's own, so
# nothing stays mounted, however the command ends.
#
# It needs root, and a Debian or Ubuntu of any age. It takes about 40 s, a minute with --slurm, and no time when DIR is
# there: some 500 MB, or 1.2 GB.
#
# SUITE and MIRROR in the environment choose another release, or another mirror of Debian's archive. With SUITE=trixie
# there are Python 3.13 (/usr/bin/python3.13) and Slurm 24.11, in a directory of its own.
set -euo pipefail

SUITE=${SUITE:-forky}
MIRROR=${MIRROR:-http://deb.debian.org/debian}
directory=/var/tmp/qcgpj-debian
packages="make ca-certificates procps bc python3 python3-venv"
case $SUITE in
    bookworm | trixie) directory=$directory-$SUITE ;;
    *)
        packages="$packages
            python3.14 python3.14-venv libpython3.14-testsuite python3.15 python3.15-venv libpython3.15-testsuite" ;;
esac
slurm_packages="slurm-wlm slurm-client munge openmpi-bin libopenmpi-dev gcc libc6-dev"

usage() { sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0"; }
fail() { echo "$0: $*" >&2; exit 2; }

while [ $# -gt 0 ]; do
    case $1 in
        --dir) directory=${2:?--dir needs a directory}; shift 2 ;;
        --slurm) packages="$packages $slurm_packages"; shift ;;
        --help) usage; exit 0 ;;
        --) shift; break ;;
        -*) fail "unknown option $1" ;;
        *) break ;;
    esac
done
[ $# -gt 0 ] || { usage >&2; exit 2; }
[ "$(id -u)" = 0 ] || fail "only root can change the root directory of a process"
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
here=/
extra=""
case $(pwd -P)/ in "$checkout"/*) ;; *) fail "COMMAND runs in the checkout, and $PWD is not in it" ;; esac
case $checkout in *[[:space:]]*) fail "the path of the checkout has a space in it" ;; esac

# ---- the release in its directory

again() {  # run a command up to three times: what it loads comes over a network, which may fail for a moment
    local attempt
    for attempt in 1 2 3; do
        "$@" && return
        echo "$0: attempt $attempt of 3 failed: $*" >&2
        [ "$attempt" = 3 ] || sleep 20
    done
    return 1
}

quietly() {  # show what a command has printed only when it fails
    local output
    output=$("$@" 2>&1) || { echo "$output" | tail -n 50 >&2; return 1; }
}

apt_get() { DEBIAN_FRONTEND=noninteractive quietly "$@"; }

install_debootstrap() {
    apt_get apt-get -o DPkg::Lock::Timeout=300 update \
        && apt_get apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends \
            debootstrap debian-archive-keyring
}

install_release() {  # in the directory $1
    local script=()
    rm -rf "$1"
    # debootstrap knows the names of releases by a script for each; all that are newer than it are set up as sid is
    [ -e "/usr/share/debootstrap/scripts/$SUITE" ] || script=(sid)
    # in a mount namespace too: one that is killed leaves /proc mounted
    quietly unshare --mount --propagation private debootstrap --variant=minbase \
        --keyring=/usr/share/keyrings/debian-archive-keyring.gpg "$SUITE" "$1" "$MIRROR" "${script[@]}" || return 1
    # Signatures are checked; a mirror that is some weeks old, or a clock that is wrong, is no reason not to run tests.
    cat > "$1/etc/apt/apt.conf.d/99qcgpj" <<'END'
Acquire::Check-Valid-Until "false";
Acquire::Check-Date "false";
Acquire::Languages "none";
Acquire::Retries "5";
APT::Install-Recommends "false";
DPkg::Options:: "--force-unsafe-io";
END
    # no daemon is started when its package is installed
    printf '#!/bin/sh\nexit 101\n' > "$1/usr/sbin/policy-rc.d"
    chmod 755 "$1/usr/sbin/policy-rc.d"
}

install_packages() {  # in the directory $1 those that follow
    local root=$1
    shift
    # the first is for what an interrupted run has left
    apt_get inside "$root" dpkg --configure -a \
        && apt_get inside "$root" apt-get update && apt_get inside "$root" apt-get install -y "$@" \
        && apt_get inside "$root" apt-get clean
}

# ---- a process in it

# Mount what a process inside needs, under the new root $1, and run the command that follows there, in the directory
# `here`. It is called in a mount namespace of its own. `extra` are the files and directories of this machine that shall
# be there too, at the same path; packages are installed without them, as they have files at some of these paths.
enter() {
    local root=$1 path
    shift
    mount --bind "$root" "$root"  # only a mount point can be the root of further namespaces, which Slurm's tests make
    for path in proc sys dev; do mount --rbind "/$path" "$root/$path"; done
    mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
    for path in $(printf '%s\n' /etc/resolv.conf /etc/hosts $extra | sort -u); do mount_same "$root" "$path"; done
    exec chroot "$root" /usr/bin/env -u TMPDIR -u VIRTUAL_ENV -u PYTHONHOME -u PYTHONPATH \
        HOME=/root LC_ALL=C.UTF-8 UV_LINK_MODE=copy \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        /bin/sh -c 'cd "$0" && exec "$@"' "$here" "$@"
}

mount_same() {  # let the file or directory $2 of this machine be at the same path under $1; what is no path is left out
    local source
    case $2 in /*) ;; *) return 0 ;; esac
    source=$(readlink -f "$2") || return 0
    if [ -d "$source" ]; then
        mkdir -p "$1$2"
    elif [ -f "$source" ]; then
        mkdir -p "$(dirname "$1$2")"
        [ ! -L "$1$2" ] || rm "$1$2"  # a link would lead out of the new root
        [ -e "$1$2" ] || : > "$1$2"
    else
        return 0
    fi
    mount --bind "$source" "$1$2"
}

inside() {
    export here extra
    unshare --mount --propagation private bash -c "set -euo pipefail; $(declare -f enter mount_same); enter \"\$@\"" \
        debian_next "$@"
}

# ---- both

mkdir -p "$(dirname "$directory")"
directory=$(readlink -m "$directory")
exec 9> "$directory.lock"
flock 9  # two that start at a time set it up once
if [ ! -d "$directory" ]; then
    command -v debootstrap > /dev/null && [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] \
        || again install_debootstrap
    again install_release "$directory.new"
    mv "$directory.new" "$directory"
fi
missing=$(chroot "$directory" dpkg-query --show --showformat '${db:Status-Status} ${Package}\n' \
    | sed -n 's/^installed //p' | sort | comm -13 - <(printf '%s\n' $packages | sort))
if [ -n "$missing" ]; then
    again install_packages "$directory" $missing
fi
exec 9>&-

# the checkout; and what pip and uv need
extra="$checkout /etc/pip.conf ${PIP_CONFIG_FILE:-} ${PIP_FIND_LINKS:-} ${UV_FIND_LINKS:-}
    /etc/ssl/certs/ca-certificates.crt ${PIP_CERT:-} ${SSL_CERT_FILE:-} ${REQUESTS_CA_BUNDLE:-}"
here=$(pwd -P)
inside "$directory" "$@"
