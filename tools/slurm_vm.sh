#!/usr/bin/env bash
# Run a command beside a Slurm with hyperthreads and cgroup v2, in a virtual machine.
#
#     tools/slurm_vm.sh [--dir DIR] [--cores 4] [--threads 2] [--limit 1800] COMMAND [ARGUMENT...]
#
# For example, whether jobs use all CPUs that Slurm gives, and no other, whatever a batch script asks for:
#
#     tools/slurm_vm.sh .venv/bin/python tools/slurm_headers.py
#
# and what an allocation of three tasks looks like:
#
#     tools/slurm_vm.sh salloc --ntasks=3 sh -c 'scontrol show -d job $SLURM_JOB_ID'
#
# The machine has the cores of one node n1 of Slurm, and the files of this one, read-only, with a layer in memory above
# them: what is written in it is gone afterwards, but for the directory OUT, which is DIR/out here. COMMAND is run in the
# root of this checkout by `tests/slurm/cluster.py`, so `make .venv/installed-test` comes first. Its output goes to
# standard output, its exit code is that of this script, and the machine's console is in DIR/out.
#
# There is no need of KVM, so it runs in any container; that makes it slow: it is there for a few checks, not for the
# whole of the tests. It boots in under a minute, and an executor takes up to half of one to start. After --limit seconds it is ended.
#
# It needs root, Slurm and Munge, and a Debian, from which it gets qemu, busybox and a kernel (of which it needs the
# modules, and unpacks them in DIR, /var/tmp/qcgpj-vm).
set -euo pipefail

directory=/var/tmp/qcgpj-vm
cores=4
threads=2
limit=1800
modules="virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci 9pnet 9pnet_virtio netfs fscache 9p
    overlay"

usage() { sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0"; }
fail() { echo "$0: $*" >&2; exit 2; }

while [ $# -gt 0 ]; do
    case $1 in
        --dir) directory=${2:?--dir needs a directory}; shift 2 ;;
        --cores) cores=${2:?--cores needs a number}; shift 2 ;;
        --threads) threads=${2:?--threads needs a number}; shift 2 ;;
        --limit) limit=${2:?--limit needs seconds}; shift 2 ;;
        --help) usage; exit 0 ;;
        --) shift; break ;;
        -*) fail "unknown option $1" ;;
        *) break ;;
    esac
done
[ $# -gt 0 ] || { usage >&2; exit 2; }
[ "$(id -u)" = 0 ] || fail "only root can read the files of this machine for the other"
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
python=$checkout/.venv/bin/python
[ -x "$python" ] || fail "no $python: make .venv/installed-test"

# ---- what it is made of

mkdir -p "$directory"
directory=$(readlink -f "$directory")
exec 9> "$directory/lock"
flock -n 9 || fail "another one runs in $directory"

if ! command -v qemu-system-x86_64 > /dev/null || ! ldd "$(command -v busybox)" 2>&1 | grep -q 'not a dynamic'; then
    apt-get -qq update
    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends qemu-system-x86 busybox-static > /dev/null
fi
if [ ! -d "$directory/kernel" ]; then
    package=$(apt-cache depends linux-image-amd64 | sed -n 's/^ *Depends: *//p' | head -n 1)
    [ -n "$package" ] || fail "apt-cache knows no linux-image-amd64: apt-get update"
    rm -rf "$directory/kernel.new" && mkdir "$directory/kernel.new"
    (cd "$directory/kernel.new" && apt-get -qq download "$package" 2> /dev/null && dpkg -x ./*.deb . && rm ./*.deb)
    mv "$directory/kernel.new" "$directory/kernel"
fi

rm -rf "$directory/out" "$directory/initrd"
mkdir -p "$directory/out" "$directory/initrd/bin" "$directory/initrd/modules"
for module in $modules; do
    file=$(find "$directory/kernel/lib/modules" -name "$module.ko*")
    [ -n "$file" ] || fail "the kernel has no module $module"
    case $file in
        *.xz) xz -dc "$file" > "$directory/initrd/modules/$module.ko" ;;
        *) cp "$file" "$directory/initrd/modules/$module.ko" ;;
    esac
done
cp "$(command -v busybox)" "$directory/initrd/bin/busybox"

# ---- what it does: first in the initrd, then with the files of this machine

cat > "$directory/initrd/init" <<END
#!/bin/busybox sh
/bin/busybox --install -s /bin
mkdir -p /proc /sys /lower /upper /root
mount -t proc proc /proc
mount -t sysfs sysfs /sys
for module in $(echo $modules); do insmod /modules/\$module.ko || echo "no \$module"; done
options=trans=virtio,version=9p2000.L,msize=262144
mount -t 9p -o ro,cache=loose,\$options root /lower || exec poweroff -f
mount -t tmpfs -o size=3g tmpfs /upper
mkdir /upper/upper /upper/work
mount -t overlay -o lowerdir=/lower,upperdir=/upper/upper,workdir=/upper/work overlay /root || exec poweroff -f
mkdir -p /root$directory/out
mount -t 9p -o \$options out /root$directory/out || exec poweroff -f
umount /proc /sys
exec switch_root /root /bin/bash $directory/out/guest.sh
END
chmod 755 "$directory/initrd/init"

{
    printf 'export PATH=%q HOME=/root LC_ALL=C.UTF-8 OUT=%q\n' "$PATH" "$directory/out"
    printf 'cd %q\ncommand=(' "$checkout"
    printf ' %q' "$@"
    printf ' )\n'
    cat <<END
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/shm /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t devpts devpts /dev/pts
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir /sys/fs/cgroup/system.slice  # where systemd would be, Slurm makes its groups in it
for group in /sys/fs/cgroup /sys/fs/cgroup/system.slice; do
    echo +cpuset +cpu +memory > \$group/cgroup.subtree_control
done
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
chmod 1777 /tmp
ln -s /proc/self/fd /dev/fd
hostname vm
echo "127.0.0.1 localhost vm" > /etc/hosts
busybox ip link set lo up
busybox ip address add 10.0.0.1/32 dev lo
# salloc refuses a standard input that is a terminal, but not its own
$python tests/slurm/cluster.py --nodes 1 --cpus $((cores * threads)) --threads $threads --cgroups-v2 \\
    --start-seconds 300 -- "\${command[@]}" < /dev/null > "\$OUT/stdout" 2> "\$OUT/stderr"
echo \$? > "\$OUT/exit_code"
sync
busybox poweroff -f
END
} > "$directory/out/guest.sh"

(cd "$directory/initrd" && find . | busybox cpio -o -H newc 2> /dev/null | gzip -1) > "$directory/initrd.gz"

# ---- run it

timeout -k 5 "$limit" nice -n 10 qemu-system-x86_64 -accel tcg,thread=multi -cpu Nehalem -m 6G \
    -smp "$((cores * threads)),sockets=1,cores=$cores,threads=$threads" -nographic -no-reboot -net none \
    -kernel "$directory"/kernel/boot/vmlinuz-* -initrd "$directory/initrd.gz" \
    -append "console=ttyS0 quiet panic=-1 mitigations=off" \
    -virtfs local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap \
    -virtfs "local,path=$directory/out,mount_tag=out,security_model=none" \
    < /dev/null > "$directory/out/console" 2>&1 || true
cat "$directory/out/stdout" 2> /dev/null || true
cat "$directory/out/stderr" >&2 2> /dev/null || true
if [ ! -e "$directory/out/exit_code" ]; then
    tail -n 20 "$directory/out/console" >&2
    fail "the machine did not come to an end by itself; its console is in $directory/out"
fi
exit "$(cat "$directory/out/exit_code")"
