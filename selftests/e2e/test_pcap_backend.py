#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The back end that takes no BPF rights (libpcap): what it captures is what the others do.

Tests of other files run here again, with this back end.
"""
import os
import socket
import threading

import harness
import pcap
import tcp
import test_capture
import test_filter
import test_interfaces
import test_own_stream
import traffic
from harness import run

PCAP = "backend: pcap\n"
# Room for a burst of super-packets on each of several interfaces: for all that a test sends.
LARGE = PCAP + ("ringSize: 256MB\n" if harness.GUEST else "ringSize: 1GB\n")
NOBODY = 65534
STREAM = 3_000_000 if harness.GUEST else 30_000_000


def again(test, agents=PCAP, **kw):
    """A test of another file, with this back end."""
    def run_it(lab):
        lab.every_agent = agents
        test(lab, **kw)
    run_it.__name__ = test.__name__
    return run_it


def complete(agent):
    assert {x["verdict"] for x in agent.ledgers()} == {"complete"}, agent.ledgers()


def whole(lab, packets, agent_ns, direction, dev):
    """@packets sent from ps0 to ps1 are what an agent at either end writes."""
    pcap.write(lab.path("in.pcap"), packets)
    agent = lab.agent(PCAP, ns=agent_ns, interfaces=f"[{dev}]", output=lab.path("out.pcap"))
    lab.replay(lab.path("in.pcap"), 4000)
    assert agent.stop() == 0
    got = pcap.read(lab.path("out.pcap")).packets
    result = pcap.compare(packets, [p.data for p in got])
    assert result == (0, 0, 0), f"missing, extra, out of order {result} of {len(packets)}"
    assert all(p.len == len(p.data) for p in got)
    complete(agent)
    for counter in ("seen", "captured", "committed"):
        assert agent.total(counter, dev, direction) == len(packets), agent.ledgers()
        assert agent.total(counter) == len(packets), agent.ledgers()


def every_real_capture_arrives_at_ingress(lab):
    if not harness.traffic_files():
        raise harness.Skip("no captures here (PS_TRAFFIC)")
    whole(lab, traffic.captured(), lab.rx, "ingress", "ps1")


def every_real_capture_arrives_at_egress(lab):
    if not harness.traffic_files():
        raise harness.Skip("no captures here (PS_TRAFFIC)")
    whole(lab, traffic.captured(), lab.tx, "egress", "ps0")


def what_the_snap_length_cuts_has_its_true_length_and_its_ports(lab):
    """The rule looks behind what is kept."""
    deep = traffic.ether(0x86DD, traffic.ipv6(0, traffic.extension(60, 6) + traffic.extension(
        17, 30) + traffic.l4(40000, 80, 900)))
    packets = [deep, traffic.ether(0x0800, traffic.ipv4(17, traffic.l4(1, 2, 900)))] * 20
    pcap.write(lab.path("in.pcap"), packets)
    agent = lab.agent(PCAP + "inputPacketLen: 64\npcapMode: allow\ncapturePorts: [80]\n",
                      output=lab.path("out.pcap"))
    lab.replay(lab.path("in.pcap"), 4000)
    assert agent.stop() == 0
    got = pcap.read(lab.path("out.pcap")).packets
    assert [(p.data, p.len) for p in got] == [(deep[:64], len(deep))] * 20
    complete(agent)


def super_packets_of_a_real_transfer_come_whole(lab):
    """The stream put together again from the capture is what was sent."""
    here, there, port = "192.0.2.2", "192.0.2.1", tcp.PORT
    lab.address((lab.tx, "ps0", there), (lab.rx, "ps1", here))
    agent = lab.agent(LARGE + "inputPacketLen: 262144\n", output=lab.path("out.pcap"))
    data = os.urandom(STREAM)
    with harness.make_socket(lab.tx, socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind((there, port))
        listener.listen()

        def serve():
            with listener.accept()[0] as s:
                while s.recv(1 << 20):
                    pass
        server = threading.Thread(target=serve)
        server.start()
        with harness.make_socket(lab.rx, socket.AF_INET, socket.SOCK_STREAM) as s:
            s.connect((there, port))
            s.sendall(data)
            s.shutdown(socket.SHUT_WR)
            server.join()
    assert agent.stop() == 0
    complete(agent)
    packets = pcap.read(lab.path("out.pcap")).packets
    assert all(p.len == len(p.data) for p in packets)
    assert tcp.reassembled((p.data for p in packets), len(data)) == data
    longest = max(p.len for p in packets)
    assert longest > 30000
    print(f"# {len(packets)} packets, the longest has {longest} bytes")


def what_the_ring_cannot_hold_is_counted(lab):
    """A reader that cannot write: everything is either in the file or in the ledger."""
    os.mkfifo(lab.path("fifo"))
    reader = os.open(lab.path("fifo"), os.O_RDONLY | os.O_NONBLOCK)
    # There is no end to read before the agent has begun to write.
    writer = os.open(lab.path("fifo"), os.O_WRONLY)
    agent = lab.agent(PCAP + "ringSize: 1MB\n", output=lab.path("fifo"))
    sent = lab.blast(20000, 1000)
    # What waits in the ring is not counted yet.
    harness.wait_until("the ring to be full", lambda: agent.snapshot()["lost_ring"] > 0)
    os.set_blocking(reader, True)
    got, end = bytearray(), threading.Event()

    def take():
        while block := os.read(reader, 1 << 20):
            got.extend(block)
        end.set()
    taker = threading.Thread(target=take)
    taker.start()
    assert agent.stop() == 0
    os.close(writer)
    taker.join()
    os.close(reader)
    with open(lab.path("out.pcap"), "wb") as f:
        f.write(got)
    total = {c: agent.total(c, "ps1", "ingress") for c in
             ("seen", "captured", "lost_ring", "ruled_out", "lost_error", "committed")}
    assert total["seen"] == sent == total["captured"] + total["lost_ring"], total
    assert total["lost_ring"] > 0 and total["ruled_out"] == total["lost_error"] == 0, total
    assert total["committed"] == len(pcap.read(lab.path("out.pcap")).packets), total
    size = {c: agent.total(c + "_bytes", "ps1", "ingress") for c in ("seen", "captured",
                                                                      "lost_ring")}
    # Nobody knows the bytes of what was dropped.
    assert size["seen"] == size["captured"] == 1000 * total["captured"], size
    assert size["lost_ring"] == 0, size
    print(f"# {total['lost_ring']} of {sent} packets lost in the ring, all of them counted")


def nobody(lab, *caps):
    """Run as nobody with these capabilities only."""
    os.chmod(lab.dir, 0o777)
    with_caps = ",".join(f"+{c}" for c in caps) if caps else "-all"
    bounding = "-all," + with_caps if caps else "-all"
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs",
            f"--bounding-set={bounding}", f"--inh-caps={bounding}", f"--ambient-caps={bounding}"]


def expressions_keep_what_libpcap_keeps(lab):
    test_filter.keeps_what_libpcap_keeps(lab, PCAP, "64MB")


def capability_net_raw_is_enough(lab):
    """Nobody, with nothing else: chosen by name, then by itself, saying why."""
    packets = [p for p in traffic.generated() if traffic.sendable(p)][:500]
    pcap.write(lab.path("in.pcap"), packets)
    filters = "filter: not host @none\nsets:\n  none: {addresses: [203.0.113.9]}\n"
    for name, extra in (("named", PCAP), ("auto", "backend: auto\n" + filters), ("default", "")):
        agent = lab.agent(extra, name=name, output=lab.path(f"{name}.pcap"),
                          wrap=nobody(lab, "net_raw"))
        with open(f"/proc/{agent.pid}/status") as f:
            status = dict(line.split(":\t", 1) for line in f)
        assert int(status["Uid"].split()[0]) == NOBODY
        assert int(status["CapEff"], 16) == 1 << 13, status["CapEff"]
        lab.replay(lab.path("in.pcap"), 4000)
        assert agent.stop() == 0
        got = [p.data for p in pcap.read(lab.path(f"{name}.pcap")).packets]
        assert pcap.compare(packets, got) == (0, 0, 0)
        complete(agent)
        agent.wait_for("capturing 1 interfaces by libpcap")
        fell_back = "capturing by pcap, because a better way does not work here: backend tc: "
        assert (fell_back in agent.text()) == (name != "named"), agent.text()
        if name != "named":
            for cap in ("CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"):
                assert cap in agent.text(), cap


def check(lab, config, *caps):
    done = run("ip", "netns", "exec", lab.rx, *nobody(lab, *caps), harness.AGENT, "--config",
               lab.file("check.yaml", config), "--check", check=False)
    return done.returncode, done.stdout.decode()


def without_any_right_each_way_says_what_it_needs(lab):
    config = f"output:\n  file:\n    path: {lab.path('out.pcap')}\n"
    code, text = check(lab, config)
    assert code == 1, text
    for word in ("backend tc: ", "CAP_BPF", "backend pcap: ", "CAP_NET_RAW"):
        assert word in text, f"{word} is not in:\n{text}"
    code, text = check(lab, config + PCAP)
    assert code == 1 and "CAP_NET_RAW" in text and "CAP_BPF" not in text, text
    code, text = check(lab, config, "net_raw")
    assert code == 0 and "libpcap" in text and "CAP_BPF" in text, text
    code, text = check(lab, config + PCAP, "net_raw")
    assert code == 0 and "CAP_BPF" not in text, text


def rings_take_no_more_than_four_times_their_size(lab):
    """What finds no room is captured once others have gone."""
    for n in (2, 3, 4):
        lab.veth(lab.tx, f"p{n}", lab.rx, f"veth{n}")
    config = PCAP + "ringSize: 2MB\n"
    for n, warning in ((2, False), (4, True)):
        names = [f"veth{i}" for i in range(2, n + 1)] + ["ps1"]
        code, text = check(lab, f"interfaces: [{', '.join(names)}]\n"
                           f"output:\n  file:\n    path: {lab.path('out.pcap')}\n{config}", "net_raw")
        assert code == 0 and ("make ringSize larger" in text) == warning, text
    agent = lab.agent(config, interfaces="[ps1, 'veth*']", output=lab.path("out.pcap"))
    lab.veth(lab.tx, "p5", lab.rx, "veth5")
    agent.wait_for('"veth5" cannot be captured: .*the rings of others have 8 MiB.*ringSize')
    run("ip", "-n", lab.rx, "link", "del", "veth2")
    agent.wait_for('capturing interface "veth5"')
    assert lab.blast(20, 200, "p5") == 20
    assert agent.stop() == 0
    assert agent.total("captured", "veth5", "ingress") == 20


if __name__ == "__main__":
    tests = [every_real_capture_arrives_at_ingress,
             every_real_capture_arrives_at_egress,
             again(test_capture.every_generated_shape_arrives_byte_for_byte_in_order),
             again(test_capture.rule_sets_keep_what_the_reference_keeps, sees_all=False,
                   ring="32MB"),
             what_the_snap_length_cuts_has_its_true_length_and_its_ports,
             super_packets_of_a_real_transfer_come_whole,
             what_the_ring_cannot_hold_is_counted,
             again(test_interfaces.interfaces_may_come_and_go_and_change_their_names),
             again(test_interfaces.loopback_is_captured_on_request_and_each_packet_once),
             again(test_interfaces.raw_ip_goes_to_a_file_of_its_own),
             again(test_own_stream.over_loopback, LARGE),
             again(test_own_stream.through_a_service_address_on_this_host_with_other_source_ports,
                   LARGE),
             expressions_keep_what_libpcap_keeps,
             again(test_filter.a_swap_under_load_misses_nothing_that_both_match, LARGE),
             again(test_filter.what_is_asked_changes_with_the_moment_and_the_text_in_the_stream),
             again(test_filter.sets_of_addresses_change_while_they_are_used),
             rings_take_no_more_than_four_times_their_size,
             capability_net_raw_is_enough,
             without_any_right_each_way_says_what_it_needs]
    if not harness.GUEST:
        tests += [again(t, LARGE) for t in
                  (test_own_stream.over_the_captured_link,
                   test_own_stream.through_a_service_address,
                   test_own_stream.through_a_service_address_with_other_source_ports,
                   test_own_stream.through_a_bridge_and_a_chain_of_links,
                   test_interfaces.a_burst_of_new_interfaces_is_captured_whole)]
    harness.main(tests)
