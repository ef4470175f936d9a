#!/usr/bin/env bash
# The disk, kernel and initrd that the machines of `make vm-lab` boot: Debian 12 with what provision.sh would install.
#   image.sh DIRECTORY
# Takes its packages from where this machine takes them; needs root, debootstrap and e2fsprogs, and about two minutes.
set -euo pipefail

directory=${1:?say where to}
# shellcheck disable=SC2016  # apt's own $(SITE)
mirror=$(apt-get indextargets --format '$(SITE)' 'Release: bookworm' 'Created-By: Packages' | head -1)
packages=(
    linux-image-cloud-amd64 systemd-sysv udev kmod dbus
    openvswitch-switch nftables iproute2 iputils-ping containernetworking-plugins python3 openssl procps curl
    ca-certificates
)

rm -rf "$directory"
mkdir -p "$directory"
work=$(mktemp -d "$directory/work.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

chosen=$(IFS=,; echo "${packages[*]}")
if ! debootstrap --variant=minbase --include="$chosen" bookworm "$work/root" "$mirror" >"$directory/debootstrap.log" 2>&1; then
    tail -5 "$directory/debootstrap.log" >&2
    exit 1
fi

# What each machine does is on its second disk, a tar file, so that this one need not be made anew when that changes.
cat >"$work/root/etc/systemd/system/lab.service" <<'UNIT'
[Unit]
Description=What this machine does
After=network.target openvswitch-switch.service

[Service]
Type=exec
ExecStartPre=/bin/mkdir -p /root/lab
ExecStartPre=/bin/tar -xf /dev/vdb -C /root/lab
ExecStart=/root/lab/infra/vagrant/vm_lab/guest.sh
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0

[Install]
WantedBy=multi-user.target
UNIT
chroot "$work/root" systemctl enable -q lab.service
chroot "$work/root" systemctl mask -q serial-getty@ttyS0.service
rm -rf "$work/root"/var/cache/apt/archives/*.deb

cp "$work/root"/boot/vmlinuz-* "$directory/vmlinuz"
cp "$work/root"/boot/initrd.img-* "$directory/initrd"
mke2fs -q -t ext4 -d "$work/root" "$directory/part.img" 2G
mv "$directory/part.img" "$directory/base.img"
