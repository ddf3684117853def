#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# demo.sh: real packets through ps-agent and ps-collector, over TLS, before your eyes.
#
# Two network namespaces joined by a veth pair: "client" sends web requests and name
# look-ups to "server"; the agent captures in "server" and streams to a collector in the
# same place. Everything is taken down at the end.
set -eu
build=$(realpath "${PS_BUILD:-build}")
[ "$(id -u)" = 0 ] || { echo "demo: run as root, namespaces and BPF need it" >&2; exit 1; }

dir=$(mktemp -d) client=psdemo-client-$$ server=psdemo-server-$$ pids=()
cleanup() {
	for pid in ${pids[@]+"${pids[@]}"}; do kill "$pid" 2>/dev/null || true; done
	wait 2>/dev/null || true
	ip netns del "$client" 2>/dev/null || true
	ip netns del "$server" 2>/dev/null || true
	rm -rf "$dir"
}
trap cleanup EXIT
say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
# wait_for FILE PATTERN: until the pattern is in the file, 20 s at most
wait_for() {
	timeout 20 sh -c 'until grep -q "$2" "$1" 2>/dev/null; do sleep 0.05; done' _ "$1" "$2" ||
		{ echo "demo: no \"$2\" in:" >&2; cat "$1" >&2; exit 1; }
}

say "two hosts (network namespaces) and a cable between them"
ip netns add "$client"
ip netns add "$server"
ip -n "$client" link add eth0 type veth peer name eth0 netns "$server"
ip -n "$client" addr add 192.0.2.1/24 dev eth0
ip -n "$server" addr add 192.0.2.2/24 dev eth0
for ns in "$client" "$server"; do
	ip -n "$ns" link set lo up
	ip -n "$ns" link set eth0 up
done
ip netns exec "$client" ping -c 1 -W 5 192.0.2.2 >/dev/null 2>&1 || true

say "a CA and certificates for both daemons: ps-collector --init-pki"
"$build/ps-collector" --init-pki "$dir/pki"

cat >"$dir/collector.yaml" <<-E
	input: {address: 127.0.0.1, port: 8081}
	output: {file: {path: $dir/dump.pcap}}
	tls: {enable: true, certfile: $dir/pki/collector.crt, keyfile: $dir/pki/collector.key, cafile: $dir/pki/ca.crt}
