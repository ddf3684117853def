#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# deps.sh [NAME...]: install the distribution packages that the named lists need and that
# are missing; does nothing when none is. Lists: build (default), test, lint, guest, cross.
# shellcheck disable=SC2206 # the lists are split into words on purpose
set -eu

build="gcc libc6-dev make pkg-config clang llvm bpftool libbpf-dev libmnl-dev libpcap-dev
	libcap-ng-dev zlib1g-dev libgnutls28-dev libyaml-dev"
# Worth having; the build goes on without them.
build_optional="libisal-dev libxdp-dev libseccomp-dev"
test="libcmocka-dev python3 iproute2 tcpdump tcpreplay procps gnutls-bin openssl libclang-rt-dev"
test_optional="wireshark-common ethtool nftables"
lint="git clang-format mandoc shellcheck python3"
lint_optional="cppcheck"
# udev and busybox-static are for the guest's early start, kmod for its modules.
guest="qemu-system-x86 busybox-static kmod udev virtme-ng iproute2"
cross="gcc-aarch64-linux-gnu qemu-user"

installed() {
	dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null | grep -qx installed
}

wanted=() optional=()
for list in "${@:-build}"; do
	case $list in
	build) wanted+=($build) optional+=($build_optional) ;;
	test) wanted+=($test) optional+=($test_optional) ;;
	lint) wanted+=($lint) optional+=($lint_optional) ;;
	guest) wanted+=($guest) ;;
	cross) wanted+=($cross) ;;
	*) echo "deps.sh: no list \"$list\"" >&2; exit 2 ;;
	esac
done
missing=()
for package in "${wanted[@]}"; do
	installed "$package" || missing+=("$package")
done
for package in ${optional[@]+"${optional[@]}"}; do
	installed "$package" || missing_optional+=("$package")
done
[ ${#missing[@]} = 0 ] && [ -z "${missing_optional[*]-}" ] && exit 0

if ! command -v apt-get >/dev/null; then
	[ ${#missing[@]} = 0 ] && exit 0
	echo "deps.sh: needs these packages of Debian, or their equals: ${missing[*]}" >&2
	exit 1
fi
if [ "$(id -u)" != 0 ]; then
	[ ${#missing[@]} = 0 ] && exit 0
	echo "deps.sh: run as root, or: apt-get install ${missing[*]}" >&2
	exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
# Debian 12 has no virtme-ng; the one of Debian 13 needs nothing else from there.
if [[ " ${missing[*]} " == *" virtme-ng "* ]] && ! apt-cache show virtme-ng >/dev/null 2>&1; then
	fetched=$(mktemp -d)
	trap 'rm -rf "$fetched"' EXIT
	apt_suite=$(dirname "$(realpath "$0")")/apt-suite
	(cd "$fetched" && "$apt_suite" trixie apt-get -qq download virtme-ng)
	missing=("${missing[@]/%virtme-ng/$(echo "$fetched"/virtme-ng_*.deb)}")
fi
[ ${#missing[@]} = 0 ] || apt-get -y -qq install --no-install-recommends "${missing[@]}" >/dev/null
for package in ${missing_optional[@]+"${missing_optional[@]}"}; do
	apt-get -y -qq install --no-install-recommends "$package" >/dev/null 2>&1 ||
		echo "deps.sh: \"$package\" cannot be had, going on without it"
done
