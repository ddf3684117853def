#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# demo.sh: real packets through ps-agent and ps-collector, over TLS, before your eyes.
#
# Two network namespaces joined by a veth pair: "client" sends web requests to "server";
# the agent captures in "server" and streams to a collector in the same place.
# Everything is taken down at the end.
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
	# shellcheck disable=SC2016 # the inner shell expands them
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
ip -n "$server" -br addr

say "a CA and certificates for both daemons: ps-collector --init-pki"
"$build/ps-collector" --init-pki "$dir/pki"
ls "$dir/pki"

cat >"$dir/collector.yaml" <<-END
	input: {address: 127.0.0.1, port: 8081}
	output: {file: {path: $dir/dump.pcap}}
	tls: {enable: true, certfile: $dir/pki/collector.crt, keyfile: $dir/pki/collector.key, cafile: $dir/pki/ca.crt}
END
cat >"$dir/agent.yaml" <<-END
	output: {server: {address: 127.0.0.1, port: 8081}}
	tls: {enable: true, certfile: $dir/pki/agent.crt, keyfile: $dir/pki/agent.key, cafile: $dir/pki/ca.crt}
	interfaces: [eth0]
END

say "ps-collector and ps-agent start"
ip netns exec "$server" "$build/ps-collector" --config "$dir/collector.yaml" 2>"$dir/collector.log" &
collector=$!
pids+=("$collector")
wait_for "$dir/collector.log" ready
ip netns exec "$server" "$build/ps-agent" --config "$dir/agent.yaml" 2>"$dir/agent.log" &
agent=$!
pids+=("$agent")
wait_for "$dir/agent.log" ready
wait_for "$dir/agent.log" "connected to the collector"
cat "$dir/collector.log" "$dir/agent.log"

say "traffic: HTTP requests from client to server"
mkdir "$dir/www"
head -c 100000 /dev/urandom >"$dir/www/file"
(cd "$dir/www" && exec ip netns exec "$server" python3 -m http.server 80 >"$dir/http.log" 2>&1) &
pids+=($!)
ip netns exec "$client" timeout 60 python3 - <<-'END'
	import time, urllib.request
	for i in range(200):
	    try:
	        urllib.request.urlopen("http://192.0.2.2/", timeout=5).read()
	        break
	    except OSError:
	        time.sleep(0.1)
	for i in range(5):
	    n = len(urllib.request.urlopen("http://192.0.2.2/file", timeout=5).read())
	    print(f"request {i + 1}: {n} bytes")
END

say "both stop: the agent flushes, waits for acknowledgements, and each gives its verdict"
kill -TERM "$agent"
wait "$agent"
kill -TERM "$collector"
wait "$collector"
grep ' ledger ' "$dir/collector.log"

say "what is in the file: tcpdump -r dump.pcap"
tcpdump -nn -r "$dir/dump.pcap" 2>/dev/null | head -n 20 || true
packets=$(tcpdump -nn -r "$dir/dump.pcap" 2>/dev/null | wc -l)
verdict=$(sed -n 's/.* ledger .*"verdict":"\([a-z]*\)".*/\1/p' "$dir/collector.log" | sort -u | xargs)
say "$packets packets in the file, verdict: $verdict"
[ "$packets" -gt 0 ] && [ "$verdict" = complete ]
