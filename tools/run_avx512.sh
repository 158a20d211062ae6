#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Runs a program of this machine, unchanged, on an emulated AVX-512 CPU (Debian's Bochs and kernel) and returns its output and exit code.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: tools/run_avx512.sh [--cpu MODEL] [--timeout SECONDS] [--file HOST_PATH]... -- PROGRAM [ARGS...]

Boots a Linux that holds only busybox, PROGRAM and its shared libraries under Bochs, and runs PROGRAM there in a directory named like the
current one. Variables TERN_*, CMOCKA_* and LD_LIBRARY_PATH are passed on; standard input is empty.

  --cpu MODEL         tigerlake (default) or corei7_icelake_u; both have AVX-512 F, BW, DQ, VL, VBMI and VNNI
  --timeout SECONDS   of host time, boot included (default 600); a run past it ends in exit code 124
  --file HOST_PATH    also copies this file or directory, to the same absolute path; may be repeated

Exit code: PROGRAM's own; 124 past the timeout; 125 if the emulator failed. One CPU, 1 GiB of memory, 30 to 100 times slower than native.
What is downloaded stays in build/emu/. The packages it needs are installed when it runs as root.
TEXT
}

say() { printf 'run_avx512: %s\n' "$*" >&2; }
die() { say "$*"; exit 125; }

root=$(cd "$(dirname "$0")/.." && pwd)
cache=$root/build/emu
packages=(bochs bochs-term bochsbios vgabios busybox-static cpio genisoimage isolinux syslinux-common bsdutils)
kernel_package=linux-image-cloud-amd64 # the smallest Debian kernel; it has the serial console, and its LZ4 image unpacks quickly

# Emulated instructions per second: sets how fast emulated time runs. Close to what Bochs reaches, so its seconds are about ours.
ips=32000000

# clearcpuid: Bochs' CPUID leaf 0xd does not match its XSAVES area nor its PKRU, at which Linux turns off AVX; and its FSRM without ERMS
# sends the kernel's memmove out of bounds. tsc_early_khz: Bochs' TSC counts instructions; without it the kernel's delays last 2.4 GHz / ips
# times too long. cryptomgr.notests halves the boot. panic=-1 reboot=t: a kernel panic ends in a triple fault, which ends Bochs.
kernel_args="console=ttyS1,115200 quiet loglevel=1 mitigations=off nokaslr clearcpuid=pku,xsavec,xsaves,fsrm"
kernel_args+=" tsc=reliable tsc_early_khz=$((ips / 1000)) random.trust_cpu=on cryptomgr.notests panic=-1 reboot=t"

exit_mark=$'\036tern-exit ' # what init writes to the second serial port before the program's exit code

# ---- what is needed, once ------------------------------------------------------------------------------------

# Prints those of $packages that are not installed.
missing_packages() {
    dpkg-query -W -f='${db:Status-Status} ${Package}\n' "${packages[@]}" 2>/dev/null |
        sed -n 's/^installed //p' | sort | comm -13 - <(printf '%s\n' "${packages[@]}" | sort)
}

install_packages() {
    command -v dpkg-query >/dev/null || die "this needs Debian packages, and dpkg is not here: ${packages[*]}"
    local missing
    mapfile -t missing < <(missing_packages)
    [ ${#missing[@]} -gt 0 ] || return 0
    [ "$(id -u)" -eq 0 ] || die "packages are missing; as root, run: apt-get install -y --no-install-recommends ${missing[*]}"
    say "installing Debian packages: ${missing[*]}"
    local log=$cache/apt.log
    if ! { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        die "apt-get failed (all of its output: $log)"
    fi
}

# Puts the kernel image of $kernel_package at $cache/vmlinuz, without installing the package.
fetch_kernel() {
    [ ! -s "$cache/vmlinuz" ] || return 0
    local package log=$cache/kernel.log dir
    package=$(apt-cache depends "$kernel_package" 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
    [ -n "$package" ] || die "apt knows no $kernel_package; run apt-get update as root (on Debian 12)"
    say "downloading $package"
    dir=$(mktemp -d "$cache/kernel.XXXXXX")
    if ! (cd "$dir" && apt-get download "$package" && dpkg-deb -x ./*.deb . && mv boot/vmlinuz-* "$cache/vmlinuz.new") >"$log" 2>&1; then
        rm -rf "$dir"
        tail -n 20 "$log" >&2
        die "$package could not be downloaded (all of the output: $log); run apt-get update as root and try again"
    fi
    rm -rf "$dir"
    mv "$cache/vmlinuz.new" "$cache/vmlinuz"
}

# ---- the bootable image --------------------------------------------------------------------------------------

shell_quote() { printf "'%s'" "${1//\'/\'\\\'\'}"; }

# copy_into ROOT PATH: PATH (absolute; links followed) to the same path below ROOT.
copy_into() {
    mkdir -p "$1$(dirname "$2")"
    cp -rLT "$2" "$1$2"
}

# Prints the loader and the shared libraries of an ELF program, each by the path at which the loader finds it.
libraries_of() {
    local listing
    listing=$(ldd "$1" 2>/dev/null) || return 0 # static
    if grep -q 'not found' <<<"$listing"; then
        grep 'not found' <<<"$listing" >&2
        die "$1 lacks the libraries above; set LD_LIBRARY_PATH"
    fi
    sed -nE 's/^\s*(.* => )?(\/[^ ]+) \(0x.*/\2/p' <<<"$listing"
}

write_init() {
    cat <<TEXT
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/shm
mount -t tmpfs tmpfs /dev/shm
exec >/dev/ttyS1 2>&1 </dev/null
stty raw -F /dev/ttyS0 115200
stty raw -F /dev/ttyS1 115200
mkfifo /.out /.err
cat /.out >/dev/ttyS0 &
out=\$!
cat /.err &
err=\$!
sh /.program >/.out 2>/.err
code=\$?
wait \$out \$err
printf '${exit_mark}%d\n' \$code
poweroff -f
TEXT
}

# The guest's command line as a script: directory, environment, program.
write_program() {
    local name
    printf 'cd %s\n' "$(shell_quote "$PWD")"
    for name in $(compgen -e | grep -E '^(TERN_|CMOCKA_|LD_LIBRARY_PATH$)' || true); do
        printf 'export %s=%s\n' "$name" "$(shell_quote "${!name}")"
    done
    printf 'exec'
    for name in "$@"; do printf ' %s' "$(shell_quote "$name")"; done
    printf '\n'
}

# build_image DIR PROGRAM [ARGS...]: DIR/boot.iso, which boots straight into PROGRAM.
build_image() {
    local dir=$1 guest=$1/guest path
    shift
    mkdir -p "$guest"/{bin,dev,proc,sys,tmp} "$guest$PWD" "$dir/iso/isolinux"
    cp "$(command -v busybox)" "$guest/bin/busybox"
    write_init >"$guest/init"
    write_program "$@" >"$guest/.program"
    chmod +x "$guest/init"
    while read -r path; do copy_into "$guest" "$path"; done < <(printf '%s\n' "$1"; libraries_of "$1")
    for path in "${files[@]}"; do copy_into "$guest" "$path"; done
    (cd "$guest" && find . | cpio --quiet -o -H newc) >"$dir/iso/isolinux/initrd"
    cp "$cache/vmlinuz" "$dir/iso/isolinux/linux"
    cp /usr/lib/ISOLINUX/isolinux.bin /usr/lib/syslinux/modules/bios/ldlinux.c32 "$dir/iso/isolinux/"
    printf 'DEFAULT tern\nPROMPT 0\nLABEL tern\n KERNEL linux\n INITRD initrd\n APPEND %s\n' "$kernel_args" >"$dir/iso/isolinux/isolinux.cfg"
    genisoimage -quiet -o "$dir/boot.iso" -b isolinux/isolinux.bin -c isolinux/boot.cat -no-emul-boot -boot-load-size 4 -boot-info-table \
        "$dir/iso"
}

# ---- the emulator ----------------------------------------------------------------------------------------------

write_bochs_config() {
    cat <<TEXT
cpu: model=$cpu, count=1, ips=$ips, reset_on_triple_fault=0
megs: 1024
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=cdrom, path=boot.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=stdout
com2: enabled=1, mode=file, dev=stderr
clock: sync=none
sound: waveoutdrv=dummy, waveindrv=dummy, midioutdrv=dummy
speaker: enabled=0
display_library: term
log: bochs.log
panic: action=fatal
error: action=report
info: action=report
TEXT
}

# Runs Bochs in directory $1 until the guest switches itself off or the timeout ends it. Its text display needs a terminal, which script(1)
# gives it; Debian's build starts in the Bochs debugger, so a file of debugger commands says "continue". script(1) sometimes waits
# forever for a Bochs that has ended, so the end is read from Bochs' log.
bochs_pid=
run_bochs() {
    printf 'continue\n' >"$1/go"
    write_bochs_config >"$1/bochsrc"
    (cd "$1" && TERM=xterm exec timeout -k 2 "$timeout_s" script -qec 'stty rows 60 cols 140; exec bochs-bin -q -f bochsrc -rc go' /dev/null) \
        >"$1/display" 2>&1 </dev/null &
    bochs_pid=$!
    disown
    until grep -qs 'quit_sim called' "$1/bochs.log" || ! kill -0 "$bochs_pid" 2>/dev/null; do sleep 0.2; done
    stop_bochs
}

stop_bochs() {
    [ -z "$bochs_pid" ] || kill "$bochs_pid" 2>/dev/null || true
    bochs_pid=
}

# ---- command line ----------------------------------------------------------------------------------------------

cpu=tigerlake
timeout_s=600
files=()
while [ $# -gt 0 ]; do
    case $1 in
    --cpu | --timeout | --file) [ $# -ge 2 ] || { usage >&2; die "$1 needs a value"; } ;;&
    --cpu) cpu=$2; shift 2 ;;
    --timeout) timeout_s=$2; shift 2 ;;
    --file)
        [ -e "$2" ] || die "--file $2: no such file"
        files+=("$(realpath -s "$2")")
        shift 2
        ;;
    --help | -h) usage; exit 0 ;;
    --) shift; break ;;
    *) usage >&2; die "unknown option $1 (is the -- before PROGRAM missing?)" ;;
    esac
done
[ $# -gt 0 ] || { usage >&2; die "no PROGRAM given"; }
[[ $cpu =~ ^(tigerlake|corei7_icelake_u)$ ]] || die "--cpu $cpu: choose tigerlake or corei7_icelake_u"
[[ $timeout_s =~ ^[1-9][0-9]*$ ]] || die "--timeout $timeout_s: give a whole number of seconds"
if [ ! -x "$1" ] || [ ! -f "$1" ]; then die "$1 is not an executable file; build it, or give its path"; fi
program=$(realpath -s "$1")
shift

mkdir -p "$cache"
exec {lock}>"$cache/lock"
flock "$lock"
install_packages
fetch_kernel
exec {lock}>&-

work=$(mktemp -d "$cache/run.XXXXXX")
trap 'stop_bochs; rm -rf "$work"' EXIT
build_image "$work" "$program" "$@"
started=$SECONDS
run_bochs "$work"

[ ! -f "$work/stdout" ] || cat "$work/stdout"
[ ! -f "$work/stderr" ] || sed -z "s/${exit_mark}.*//" "$work/stderr" >&2
code=$(sed -nE "s/.*${exit_mark}([0-9]+).*/\1/p" "$work/stderr" 2>/dev/null | tail -n 1 || true)
[ -z "$code" ] || exit "$code"
if [ $((SECONDS - started)) -ge "$timeout_s" ]; then
    say "no result after $timeout_s s; give a larger --timeout or less work to $program"
    exit 124
fi
tail -n 15 "$work/bochs.log" >&2 || true
die "the emulator ended before $program did (the end of its log is above)"
