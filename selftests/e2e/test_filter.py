#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Filter expressions in the kernel: what they keep, and how they change under load."""
import json
import os
import re
import signal

import checks
import harness
import pcap
import traffic

PPS = 4000
FILTERS = [
    "tcp",
    "udp port 53 or tcp port 80 or tcp port 443",
    "vlan",
    "vlan and vlan",
    "not vlan and ip6",
    "ether[12:2] > 0x800 and greater 100",
    "tcp[tcpflags] & (tcp-syn|tcp-fin) != 0",
    "ip[2:2] > 576 or ip6 protochain 6",
    "icmp or icmp6 or arp or stp or isis",
    "len % 7 = 3",
    "host 10.0.0.1 or net 192.168.0.0/16",
    "inner(tcp or udp or arp)",
    "inner(ip) and not udp",
]


def offline(lab, path, expression):
    """What libpcap keeps of a file."""
    out = lab.path("offline.pcap")
    harness.run("tcpdump", "-r", path, "-w", out, "--time-stamp-precision=nano", expression)
    return [p.data for p in pcap.read(out).packets]


def packets_for(lab):
    packets = [p for p in traffic.generated() if traffic.sendable(p)] + traffic.captured()
    pcap.write(lab.path("in.pcap"), packets)
    return packets


def keeps_what_libpcap_keeps(lab, backend, ring="8MB"):
    """All expressions at once, each an agent of its own. Tagged packets come to a TC hook with
    the tag in the metadata."""
    packets = packets_for(lab)
    kept = {}
    filters = FILTERS[::3] if harness.GUEST else FILTERS
    at_once = len(filters)
    if "xdp" in backend:
        # One program has room at an interface, so one agent at a time.
        filters, at_once = filters[1::3], 1
    for first in range(0, len(filters), at_once):
        group = list(enumerate(filters))[first:first + at_once]
        agents = [lab.agent(f"filter: '{f}'\nringSize: {ring}\n{backend}", name=f"agent{i}",
                            output=lab.path(f"out{i}.pcap")) for i, f in group]
        lab.replay(lab.path("in.pcap"), PPS)
        for agent in agents:
            assert agent.stop() == 0
        for (i, f), agent in zip(group, agents):
            got = [p.data for p in pcap.read(lab.path(f"out{i}.pcap")).packets]
            kept[f] = got
            total = agent.total("seen", direction="ingress")
            assert total == len(packets), f"{f}: {total} seen"
            assert agent.total("captured", direction="ingress") == len(got)
            assert agent.total("expression_out", direction="ingress") == total - len(got)
            if "inner" not in f:
                want = offline(lab, lab.path("in.pcap"), f)
                result = pcap.compare(want, got)
                assert result == (0, 0, 0), f"{f}: {len(want)} wanted, {result}"
        checks.check_sums(*agents)
    print(f"# {len(filters)} expressions over {len(packets)} packets: "
          f"{', '.join(str(len(k)) for k in kept.values())} kept")
    return kept


def tc_keeps_what_libpcap_keeps(lab):
    kept = keeps_what_libpcap_keeps(lab, "backend: tc\n")
    if harness.traffic_files() and not harness.GUEST:
        assert len(kept["inner(tcp or udp or arp)"]) > len(kept["inner(ip) and not udp"]) > 0


def native_xdp_keeps_what_libpcap_keeps(lab):
    keeps_what_libpcap_keeps(lab, "backend: xdp\nxdpMode: native\n")


def generic_xdp_keeps_what_libpcap_keeps(lab):
    keeps_what_libpcap_keeps(lab, "backend: xdp\nxdpMode: generic\n")


def interfaces_have_filters_of_their_own(lab):
    lab.veth(lab.rx, "ps3", lab.tx, "ps2", 9000)
    packets = packets_for(lab)
    agent = lab.agent("filter: tcp\nperInterface:\n  'ps3*': {filter: udp}\n",
                      interfaces="[ps1, ps3]", output=lab.path("out.pcap"))
    for dev in ("ps0", "ps2"):
        lab.replay(lab.path("in.pcap"), PPS, dev=dev)
    assert agent.stop() == 0
    want = offline(lab, lab.path("in.pcap"), "tcp") + offline(lab, lab.path("in.pcap"), "udp")
    got = [p.data for p in pcap.read(lab.path("out.pcap")).packets]
    assert pcap.compare(want, got) == (0, 0, 0)
    assert agent.total("seen", "ps3", "ingress") == len(packets)


def reconfigure(lab, agent, **keys):
    """Change lines of the agent's configuration, and let it read that."""
    path = lab.path("agent.yaml")
    with open(path) as f:
        text = f.read()
    for key, value in keys.items():
        text = re.sub(rf"^{key}:.*$", lambda _, k=key, v=value: f"{k}: {v}", text, flags=re.M)
    with open(path + ".new", "w") as f:
        f.write(text)
    os.rename(path + ".new", path)
    agent.signal(signal.SIGHUP)


def notes(collector):
    return [json.loads(line[line.index("{"):]) for line in collector.text().splitlines()
            if " note {" in line]


def a_swap_under_load_misses_nothing_that_both_match(lab):
    """Every packet matches both expressions; the link of the hook stays the same."""
    swaps = 100 if harness.GUEST else 1000
    collector = lab.collector()
    agent = lab.agent("filter: udp and greater 100\n")
    link = harness.run("ip", "netns", "exec", lab.rx, "bpftool", "-j", "net").stdout
    with checks.traffic(lab, 10 ** 7, 20000) as blast:
        for n in range(1, swaps + 1):
            reconfigure(lab, agent, filter=f"udp and dst port 2222 and not port {n}"
                        if n % 2 else "ip and greater 100")
            agent.wait_for("the configuration was read again", count=n)
        blast.terminate()
        sent = int(blast.stdout.read().split()[0])
        blast.wait()
        blast.communicate = lambda timeout: (str(10 ** 7).encode(), None)
    assert harness.run("ip", "netns", "exec", lab.rx, "bpftool", "-j", "net").stdout == link
    assert agent.stop() == 0 and collector.stop() == 0
    checks.check_once_each(checks.numbers(lab.path("dump.pcap")), sent)
    checks.check_complete(agent, collector)
    assert agent.total("expression_out") == 0
    told = [n for n in notes(collector) if n["kind"] == "filter"]
    assert told and all(n["interface"] == "ps1" and n["text"] for n in told)
    print(f"# {swaps} swaps over {sent} packets, {len(told)} notes logged")


def what_is_asked_changes_with_the_moment_and_the_text_in_the_stream(lab):
    collector = lab.collector()
    agent = lab.agent("filter: udp\n")
    assert lab.blast(100) == 100
    harness.wait_until("100 packets", lambda: agent.snapshot()["captured"] == 100)
    reconfigure(lab, agent, filter="tcp")
    agent.wait_for('the filter of "ps1" is now: tcp')
    assert lab.blast(50) == 50
    harness.wait_until("50 packets", lambda: agent.snapshot()["expression_out"] == 50)
    # What cannot be is refused, and nothing changes.
    reconfigure(lab, agent, filter="tcp prt 5")
    agent.wait_for("agent.yaml:[0-9]+:[0-9]+: filter: .*syntax error")
    agent.wait_for("the former configuration stays in use")
    assert lab.blast(50) == 50
    harness.wait_until("100 packets", lambda: agent.snapshot()["expression_out"] == 100)
    assert agent.stop() == 0 and collector.stop() == 0
    checks.check_complete(agent, collector)
    checks.check_same(agent, collector)
    told = [n for n in notes(collector) if n["kind"] == "filter"]
    assert [n["text"] for n in told] == ["tcp"], told
    assert len(checks.numbers(lab.path("dump.pcap"))) == 100


def sets_of_addresses_change_while_they_are_used(lab):
    """blast sends from 192.0.2.1 to 192.0.2.2."""
    lab.file("bad.txt", "# nobody yet\n203.0.113.7\n2001:db8::/32\n")
    agent = lab.agent("filter: host @bad and not src @good\n"
                      f"sets:\n  bad: {{file: {lab.path('bad.txt')}}}\n"
                      "  good: {addresses: [198.51.100.0/24]}\n", output=lab.path("out.pcap"))
    assert lab.blast(10) == 10
    harness.wait_until("10 packets", lambda: agent.snapshot()["expression_out"] == 10)
    lab.file("bad.txt", "203.0.113.7\n192.0.2.0/30\n")
    agent.signal(signal.SIGHUP)
    agent.wait_for("the configuration was read again")
    assert lab.blast(20) == 20
    harness.wait_until("20 packets", lambda: agent.snapshot()["captured"] == 20)
    lab.file("bad.txt", "192.0.2.0/33\n")
    agent.signal(signal.SIGHUP)
    agent.wait_for("bad.txt:1: .*192.0.2.0/33")
    assert lab.blast(5) == 5
    harness.wait_until("25 packets", lambda: agent.snapshot()["captured"] == 25)
    assert agent.stop() == 0
    checks.check_complete(agent)


def read_again(agent, count=1):
    agent.signal(signal.SIGHUP)
    agent.wait_for("the configuration was read again", count=count)


def goes(lab, agent, counter):
    """Where one more packet goes, from 192.0.2.1 as all of blast's."""
    before = agent.snapshot()
    assert lab.blast(1) == 1
    harness.wait_until("one packet more", lambda: agent.snapshot()["seen"] > before["seen"])
    return agent.snapshot()[counter] == before[counter] + 1


def an_address_is_in_one_of_two_sets_at_every_moment(lab):
    """It moves between them, as a host and as a network."""
    reloads = 40 if harness.GUEST else 300
    one, two = "192.0.2.1\n", "192.0.2.0/30\n"
    lab.file("a.txt", one)
    lab.file("b.txt", "")
    agent = lab.agent("filter: src host @a or src host @b\nsets:\n"
                      f"  a: {{file: {lab.path('a.txt')}}}\n  b: {{file: {lab.path('b.txt')}}}\n",
                      output="/dev/null")
    with checks.traffic(lab, 10 ** 7, 20000) as blast:
        for n in range(1, reloads + 1):
            lab.file("a.txt", "" if n % 2 else (one, two)[n // 2 % 2])
            lab.file("b.txt", (two, one)[n // 2 % 2] if n % 2 else "")
            read_again(agent, n)
        blast.terminate()
        sent = int(blast.stdout.read().split()[0])
        blast.wait()
        blast.communicate = lambda timeout: (str(10 ** 7).encode(), None)
    assert agent.stop() == 0
    checks.check_complete(agent)
    assert agent.total("seen", direction="ingress") == sent
    assert agent.total("expression_out") == 0
    print(f"# {reloads} moves over {sent} packets")


def a_set_that_comes_back_is_new_and_one_that_goes_needs_no_file(lab):
    lab.file("bad.txt", "192.0.2.1\n")
    agent = lab.agent("filter: host @bad\n"
                      f"sets: {{bad: {{file: {lab.path('bad.txt')}}}}}\n", output="/dev/null")
    assert goes(lab, agent, "captured")
    os.unlink(lab.path("bad.txt"))
    reconfigure(lab, agent, filter="udp", sets="{}")
    agent.wait_for("the configuration was read again")
    # From a list now, and then from a file again.
    reconfigure(lab, agent, filter="host @bad", sets="{bad: {addresses: [203.0.113.7]}}")
    agent.wait_for("the configuration was read again", count=2)
    assert goes(lab, agent, "expression_out")
    lab.file("other.txt", "192.0.2.1\n")
    reconfigure(lab, agent, sets=f"{{bad: {{file: {lab.path('other.txt')}}}}}")
    agent.wait_for("the configuration was read again", count=3)
    assert goes(lab, agent, "captured")
    assert agent.stop() == 0
    checks.check_complete(agent)


def a_reload_that_fails_changes_no_set(lab):
    """Whatever it fails for: another set, which is read later, or a filter, which comes last."""
    lab.file("a.txt", "203.0.113.7\n")
    lab.file("b.txt", "203.0.113.8\n")
    agent = lab.agent("filter: host @a or host @b\nsets:\n"
                      f"  a: {{file: {lab.path('a.txt')}}}\n  b: {{file: {lab.path('b.txt')}}}\n",
                      output="/dev/null")
    lab.file("a.txt", "192.0.2.1\n")
    lab.file("b.txt", "nonsense\n")
    agent.signal(signal.SIGHUP)
    agent.wait_for("b.txt:1: .*nonsense")
    agent.wait_for("the former configuration stays in use")
    assert goes(lab, agent, "expression_out")
    lab.file("b.txt", "\n")
    too_long = " or ".join(f"host 10.{n // 256}.{n % 256}.1" for n in range(400))
    reconfigure(lab, agent, filter=f"host @a or ({too_long})")
    agent.wait_for("the former configuration stays in use", count=2)
    assert goes(lab, agent, "expression_out")
    reconfigure(lab, agent, filter="host @a or host @b")
    agent.wait_for("the configuration was read again")
    assert goes(lab, agent, "captured")
    assert agent.stop() == 0
    checks.check_complete(agent)


def names_are_looked_up_again(lab):
    hosts = lab.file("hosts", "203.0.113.7 moving.invalid\n")
    agent = lab.agent("filter: host moving.invalid\n", output="/dev/null",
                      wrap=["unshare", "--mount", "sh", "-c",
                            f'mount --bind {hosts} /etc/hosts && exec "$@"', "sh"])
    assert goes(lab, agent, "expression_out")
    lab.file("hosts", "192.0.2.1 moving.invalid\n")
    read_again(agent)
    assert goes(lab, agent, "captured")
    assert agent.stop() == 0
    checks.check_complete(agent)


def an_interface_that_cannot_be_asked_is_left_out(lab):
    """As at a start; it comes back with a filter that can be asked of it."""
    harness.run("ip", "-n", lab.rx, "tuntap", "add", "tun7", "mode", "tun")
    harness.run("ip", "-n", lab.rx, "link", "set", "tun7", "up")
    agent = lab.agent("filter: udp\n", interfaces="[ps1, tun7]", output="/dev/null")
    agent.wait_for("capturing 2 interfaces")
    reconfigure(lab, agent, filter="ether host 02:00:00:00:00:07")
    agent.wait_for("the configuration was read again")
    agent.wait_for('interface "tun7" cannot be captured: filter: ')
    assert goes(lab, agent, "expression_out")
    reconfigure(lab, agent, filter="ip")
    agent.wait_for("the configuration was read again", count=2)
    agent.wait_for('capturing interface "tun7"', count=2)
    assert agent.stop() == 0
    checks.check_complete(agent)


def a_filter_that_no_interface_can_be_asked_is_refused(lab):
    harness.run("ip", "-n", lab.rx, "tuntap", "add", "tun7", "mode", "tun")
    harness.run("ip", "-n", lab.rx, "link", "set", "tun7", "up")
    agent = lab.agent("filter: udp\n", interfaces="[tun7]", output="/dev/null")
    reconfigure(lab, agent, filter="ether host 02:00:00:00:00:07")
    agent.wait_for("tun7: filter: ")
    agent.wait_for("the former configuration stays in use")
    assert agent.stop() == 0


if __name__ == "__main__":
    harness.main([tc_keeps_what_libpcap_keeps,
                  native_xdp_keeps_what_libpcap_keeps,
                  generic_xdp_keeps_what_libpcap_keeps,
                  interfaces_have_filters_of_their_own,
                  a_swap_under_load_misses_nothing_that_both_match,
                  what_is_asked_changes_with_the_moment_and_the_text_in_the_stream,
                  sets_of_addresses_change_while_they_are_used,
                  an_address_is_in_one_of_two_sets_at_every_moment,
                  a_set_that_comes_back_is_new_and_one_that_goes_needs_no_file,
                  a_reload_that_fails_changes_no_set,
                  names_are_looked_up_again,
                  an_interface_that_cannot_be_asked_is_left_out,
                  a_filter_that_no_interface_can_be_asked_is_refused])
