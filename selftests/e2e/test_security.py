#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Who may send to whom. A peer that is refused leaves one clear line on each side and
not a packet anywhere; packets captured meanwhile stay in the agent's ledger."""
import datetime
import os
import random
import re
import shutil
import signal
import zlib

import harness
import pcap
import traffic
from checks import (check_complete, check_once_each, check_same, check_sums, numbers, records,
                    wait_records)
from checks import traffic as under_traffic

PLAIN = "tls:\n  enable: false\n"
KEY = "correct horse battery staple"
COUNT = 40
# What the agent and the collector say about a connection that did not work.
AGENT_SAYS, COLLECTOR_SAYS = "no connection to the collector", "is disconnected:"
COLLECTOR_REFUSES = "is refused:"  # who was let in, and then said who it is


def shared_key(key):
    return f'auth:\n  enable: true\n  key: "{key}"\n'


def attempts(lab):
    """Connections that listeners in the namespace took so far."""
    head, values = [line.split() for line in harness.run(
        "ip", "netns", "exec", lab.rx, "cat", "/proc/net/snmp").stdout.decode().splitlines()
        if line.startswith("Tcp:")]
    return int(values[head.index("PassiveOpens")])


def lines(daemon, text):
    return [line for line in daemon.text().splitlines() if text in line]


def check_nothing_written(lab, collector):
    assert collector.stop() == 0
    assert pcap.read(lab.path("dump.pcap")).packets == []
    assert collector.ledgers() == []


def refused(lab, collector, agent, agent_says, collector_says, how=COLLECTOR_SAYS):
    """The agent tries at least three times, with packets to send; each side says why it
    does not work, once."""
    agent.wait_for(re.escape(agent_says))
    assert lab.blast(COUNT) == COUNT
    harness.wait_until("three attempts", lambda: attempts(lab) >= 3, 20)
    collector.wait_for(re.escape(collector_says))
    # What is cut off when the agent stops may be another complaint.
    said_there = lines(collector, how)
    assert agent.stop() == 0
    for name, said, says in (("agent", lines(agent, AGENT_SAYS), agent_says),
                             ("collector", said_there, collector_says)):
        assert len(said) == 1 and says in said[0], f"the {name} said {said}, wanted {says!r}"
    assert agent.total("captured", "ps1", "ingress") == COUNT
    assert agent.total("committed") == 0
    assert lines(agent, "has not acknowledged everything")
    assert {d["verdict"] for d in agent.ledgers() if d["captured"]} == {"unknown"}
    check_nothing_written(lab, collector)


def refuse(lab, agent_says, collector_says, collector_tls=None, agent_tls=None,
           how=COLLECTOR_SAYS):
    collector = lab.collector(tls=collector_tls)
    agent = lab.agent("shutdownTimeout: 300ms\n", tls=agent_tls)
    refused(lab, collector, agent, agent_says, collector_says, how)


def accepted(lab, collector_tls=None, agent_tls=None):
    collector, agent = lab.collector(tls=collector_tls), lab.agent(tls=agent_tls)
    assert lab.blast(COUNT) == COUNT
    assert agent.stop() == 0 and collector.stop() == 0
    assert len(pcap.read(lab.path("dump.pcap")).packets) == COUNT
    assert agent.total("committed") == COUNT == collector.total("committed")
    assert {d["verdict"] for d in agent.ledgers() + collector.ledgers()} == {"complete"}
    assert not lines(agent, AGENT_SAYS) and not lines(collector, COLLECTOR_SAYS)


def other_pki(lab):
    harness.run(harness.COLLECTOR, "--init-pki", lab.path("other"))
    return lab.path("other")


def mixed(lab, who, own, ca):
    """A `tls` block: certificate and key of one PKI, the CA of another."""
    return (f"tls:\n  certfile: {own}/{who}.crt\n  keyfile: {own}/{who}.key\n"
            f"  cafile: {ca}/ca.crt\n")


def sign(lab, name, purpose, seconds, names=("agent", "localhost", "127.0.0.1")):
    """A certificate of the lab's own CA that is good for so many seconds: its tls block."""
    pki = lab.pki()
    harness.run("certtool", "--generate-privkey", "--key-type", "ecdsa", "--curve", "secp256r1",
                "--outfile", lab.path(f"{name}.key"))
    now = datetime.datetime.now(datetime.timezone.utc)
    end = now + datetime.timedelta(seconds=seconds)
    begin = min(now, end) - datetime.timedelta(hours=1)
    template = lab.file(f"{name}.cfg", "".join(
        [f'cn = "{name}"\n', f'activation_date = "{begin:%Y-%m-%d %H:%M:%S} UTC"\n',
         f'expiration_date = "{end:%Y-%m-%d %H:%M:%S} UTC"\n', "signing_key\n", f"{purpose}\n"] +
        [f'{"ip_address" if n[0].isdigit() else "uri" if ":" in n else "dns_name"} = "{n}"\n'
         for n in names]))
    harness.run("certtool", "--generate-certificate", "--load-privkey", lab.path(f"{name}.key"),
                "--load-ca-certificate", f"{pki}/ca.crt", "--load-ca-privkey", f"{pki}/ca.key",
                "--template", template, "--outfile", lab.path(f"{name}.crt"))
    return end, (f"tls:\n  certfile: {lab.path(name)}.crt\n  keyfile: {lab.path(name)}.key\n"
                 f"  cafile: {pki}/ca.crt\n")


def wait_past(end):
    harness.wait_until("the certificate to expire",
                       lambda: datetime.datetime.now(datetime.timezone.utc) >
                       end + datetime.timedelta(seconds=1), 30)


def start_fails(lab, daemon, says, status=1):
    """The daemon did not come up, and said why in one line."""
    assert daemon.proc.wait(20 * harness.PATIENCE) == status, daemon.text()
    said = lines(daemon, says)
    assert len(said) == 1 == len(daemon.text().splitlines()), daemon.text()


# What works.

def certificates_are_accepted(lab):
    accepted(lab)


def a_shared_key_is_accepted(lab):
    accepted(lab, shared_key(KEY), shared_key(KEY))


def plain_text_is_accepted_where_both_sides_spell_it_out(lab):
    accepted(lab, PLAIN, PLAIN)


def a_server_name_of_the_configuration_replaces_the_address(lab):
    lab.pki("collector.example")
    accepted(lab, None, lab.tls("agent") + "  serverName: collector.example\n")


# Certificates that do not do.

def an_agent_refuses_a_collector_that_its_ca_did_not_sign(lab):
    other = other_pki(lab)
    refuse(lab, f'the certificate of the collector is signed by nobody in "{other}/ca.crt"',
           "the agent refused our certificate: signed by nobody in its tls.cafile",
           agent_tls=mixed(lab, "agent", lab.pki(), other))


def a_collector_refuses_an_agent_that_its_ca_did_not_sign(lab):
    other = other_pki(lab)
    refuse(lab, "the collector refused our certificate: signed by nobody in its tls.cafile",
           f'the certificate of the agent is signed by nobody in "{lab.pki()}/ca.crt"',
           agent_tls=mixed(lab, "agent", other, lab.pki()))


def an_agent_refuses_a_collector_of_another_name(lab):
    lab.pki("collector.example")
    refuse(lab, "not for other.example",
           "the agent refused our certificate: damaged, or not for the name that was asked for",
           agent_tls=lab.tls("agent") + "  serverName: other.example\n")


def an_agent_refuses_a_collector_whose_certificate_has_expired(lab):
    end, tls = sign(lab, "short", "tls_www_server", 8)
    collector = lab.collector(tls=tls)
    wait_past(end)
    agent = lab.agent("shutdownTimeout: 300ms\n")
    refused(lab, collector, agent, f"the certificate of the collector expired on {end:%Y-%m-%d}",
            "the agent refused our certificate: expired or not yet valid there")


def a_collector_refuses_an_agent_whose_certificate_has_expired(lab):
    end, tls = sign(lab, "short", "tls_www_client", 8)
    agent = lab.agent("shutdownTimeout: 300ms\n", tls=tls)
    agent.wait_for("Connection refused")
    wait_past(end)
    collector = lab.collector()
    # It looks at its own before it says who it is.
    agent.wait_for("the certificate of this agent has expired")
    # Not being there was another trouble, with a line of its own.
    assert len(lines(agent, AGENT_SAYS)) == 2
    assert lab.blast(COUNT) == COUNT
    collector.wait_for(f"the certificate of the agent expired on {end:%Y-%m-%d}")
    assert len(lines(collector, COLLECTOR_SAYS)) == 1
    assert agent.stop() == 0
    assert len(lines(agent, AGENT_SAYS)) == 2
    assert (agent.total("captured"), agent.total("committed")) == (COUNT, 0)
    check_nothing_written(lab, collector)


def neither_side_starts_with_a_certificate_that_has_expired(lab):
    _, server = sign(lab, "server", "tls_www_server", -60)
    _, client = sign(lab, "client", "tls_www_client", -60)
    start_fails(lab, lab.start("collector", harness.COLLECTOR,
                               "input:\n  address: 127.0.0.1\n  port: 8081\n"
                               f"output:\n  file:\n    path: {lab.path('dump.pcap')}\n{server}",
                               lab.rx), "expired on")
    start_fails(lab, lab.agent(tls=client, ready=False), "expired on")


def a_collector_refuses_the_certificate_of_a_collector(lab):
    refuse(lab, "the collector refused our certificate: not made for this purpose",
           "the certificate of the agent is not made for client authentication",
           agent_tls=lab.tls("collector"))


def an_agent_refuses_the_certificate_of_an_agent(lab):
    refuse(lab, "the certificate of the collector is not made for server authentication",
           "the agent refused our certificate: not made for this purpose",
           collector_tls=lab.tls("agent"))


# Which agents, under which names.

def agent_tls(lab, *names, name="own"):
    return sign(lab, name, "tls_www_client", 3600, names)[1]


def a_name_that_is_not_in_the_certificate_is_refused(lab):
    says = ('agent name "agent" is not in its certificate (other.example): set agentName on '
            "the agent, or agents.names on the collector")
    refuse(lab, f"the collector says: {says}", says, agent_tls=agent_tls(lab, "other.example"),
           how=COLLECTOR_REFUSES)


def a_name_in_the_certificate_is_accepted(lab):
    accepted(lab, agent_tls=agent_tls(lab, "spiffe://corp/ns/agent"))


def a_name_that_is_the_first_label_is_accepted(lab):
    accepted(lab, agent_tls=agent_tls(lab, "Agent.nodes.example"))


def the_shared_certificate_is_good_for_any_name(lab):
    collector = lab.collector()
    agent = lab.agent(name="whatever")
    assert lab.blast(COUNT) == COUNT
    assert agent.stop() == 0 and collector.stop() == 0
    assert len(pcap.read(lab.path("dump.pcap")).packets) == COUNT
    assert {d["agent"] for d in collector.ledgers()} == {"whatever"}


def any_name_is_accepted_where_the_collector_says_so(lab):
    accepted(lab, lab.tls("collector") + "agents: {names: any}\n",
             agent_tls(lab, "other.example"))


def an_agent_that_matches_agents_allow_is_accepted(lab):
    accepted(lab, lab.tls("collector") + "agents: {allow: [nobody, '*.berlin.example']}\n",
             agent_tls(lab, "agent.berlin.example"))


def an_agent_that_matches_nothing_in_agents_allow_is_refused(lab):
    says = '"agent.paris.example" is none of agents.allow'
    refuse(lab, f"the collector says: {says}", says,
           lab.tls("collector") + "agents: {allow: ['*.berlin.example']}\n",
           agent_tls(lab, "agent.paris.example"))


# Credentials that change.

def put(lab, to, source):
    """Certificate and key take the place of others, each by a rename."""
    os.makedirs(lab.path("live"), exist_ok=True)
    for suffix in ".crt", ".key":
        shutil.copy(source + suffix, lab.path("new"))
        os.replace(lab.path("new"), lab.path(f"live/{to}{suffix}"))


def live(lab, who, source, more=""):
    """A `tls` block whose files put() replaces."""
    put(lab, who, source)
    return (f"tls:\n  certfile: {lab.path('live')}/{who}.crt\n"
            f"  keyfile: {lab.path('live')}/{who}.key\n  cafile: {lab.pki()}/ca.crt\n{more}")


def revoke(lab, *certificates, days=1):
    """The lab's list names these, and takes the place of the former one by a rename."""
    pki = lab.pki()
    with open(lab.path("revoked.crt"), "wb") as out:
        for path in certificates:
            with open(path, "rb") as f:
                out.write(f.read())
    some = ["--load-certificate", lab.path("revoked.crt")] if certificates else []
    harness.run("certtool", "--generate-crl", "--load-ca-certificate", f"{pki}/ca.crt",
                "--load-ca-privkey", f"{pki}/ca.key",
                "--template", lab.file("crl.cfg", f"crl_next_update = {days}\n"), *some,
                "--outfile", lab.path("new"))
    os.replace(lab.path("new"), lab.path("ca.crl"))
    return lab.path("ca.crl")


def served(lab):
    """The common name in the certificate that the collector shows to a new client."""
    out = harness.run("ip", "netns", "exec", lab.rx, "timeout", "20", "openssl", "s_client",
                      "-connect", "127.0.0.1:8081", "-tls1_3", "-alpn", "ps/1", *credentials(lab),
                      check=False, stdin=harness.subprocess.DEVNULL).stdout.decode()
    return re.search(r"^subject=.*CN ?= ?(\S+)$", out, re.M).group(1)


COLLECTOR_LOADED = "the credentials were loaded again"
AGENT_LOADED = "the credentials were read again"


def written(lab):
    """How many packets are in the file so far."""
    return records(lab.path("dump.pcap"))


def swapped(lab, ask):
    """Both sides get other certificates while packets flow, and notice on their own unless
    they are asked to look. The session goes on; the next one uses them."""
    count = 25000 if ask else 60000
    sign(lab, "second", "tls_www_server", 3600)
    agent_tls(lab, "agent", name="first-agent")
    agent_tls(lab, "agent", name="second-agent")
    collector = lab.collector(tls=live(lab, "collector", f"{lab.pki()}/collector"))
    agent = lab.agent(tls=live(lab, "agent", lab.path("first-agent")))
    with under_traffic(lab, count, 5000):
        wait_records(lab.path("dump.pcap"), 2000)
        assert served(lab) == "ps-collector"
        put(lab, "collector", lab.path("second"))
        put(lab, "agent", lab.path("second-agent"))
        for daemon in (collector, agent) if ask else ():
            daemon.signal(signal.SIGHUP)
        collector.wait_for(COLLECTOR_LOADED)
        agent.wait_for(AGENT_LOADED)
        assert served(lab) == "second"
        assert not lines(agent, AGENT_SAYS)
        before = written(lab)
        wait_records(lab.path("dump.pcap"), before + 2000)
    assert agent.stop() == 0 and collector.stop() == 0
    assert not lines(agent, AGENT_SAYS), "the session did not go on"
    check_once_each(numbers(lab.path("dump.pcap")), count)
    check_complete(agent, collector)
    check_same(agent, collector)


def certificates_are_swapped_under_traffic_by_a_signal(lab):
    swapped(lab, ask=True)


def certificates_are_swapped_under_traffic_by_their_files_alone(lab):
    swapped(lab, ask=False)


def an_agent_whose_certificate_was_replaced_and_revoked_comes_back_with_the_new_one(lab):
    """The other side of a swap: the former certificate is no good any more."""
    count = 40000
    for name in "first-agent", "second-agent":
        agent_tls(lab, "agent", name=name)
    crl = f"  crlfile: {revoke(lab)}\n"
    collector = lab.collector(tls=live(lab, "collector", f"{lab.pki()}/collector", crl))
    agent = lab.agent(tls=live(lab, "agent", lab.path("first-agent")))
    with under_traffic(lab, count, 5000):
        wait_records(lab.path("dump.pcap"), 2000)
        put(lab, "agent", lab.path("second-agent"))
        agent.signal(signal.SIGHUP)
        agent.wait_for(AGENT_LOADED)
        revoke(lab, lab.path("first-agent.crt"))
        collector.signal(signal.SIGHUP)
        collector.wait_for("the certificate of the agent was revoked")
    wait_records(lab.path("dump.pcap"), count, 30)
    assert agent.stop() == 0 and collector.stop() == 0
    check_once_each(numbers(lab.path("dump.pcap")), count)
    check_complete(agent, collector)
    check_same(agent, collector)
    assert len(lines(collector, "was revoked")) == 1


def a_revoked_agent_is_disconnected_and_the_others_go_on(lab):
    count = 40000
    tls = {name: agent_tls(lab, f"{name}.example", name=name) for name in ("good", "bad")}
    crl = f"  crlfile: {revoke(lab)}\n"
    collector = lab.collector(tls=live(lab, "collector", f"{lab.pki()}/collector", crl))
    agents = {name: lab.agent("shutdownTimeout: 300ms\n", name=name, tls=tls[name])
              for name in ("good", "bad")}
    with under_traffic(lab, count, 5000):
        wait_records(lab.path("dump.pcap"), 2000)
        revoke(lab, lab.path("bad.crt"))
        # Nobody tells the collector.
        collector.wait_for("the certificate of the agent was revoked")
        agents["bad"].wait_for("revoked")
        before = attempts(lab)
        harness.wait_until("attempts of the revoked one", lambda: attempts(lab) >= before + 2, 40)
    for agent in agents.values():
        assert agent.stop() == 0
    assert collector.stop() == 0
    here = {name: sum(d["committed"] for d in collector.ledgers() if d["agent"] == name)
            for name in agents}
    assert here["good"] == count == agents["good"].total("committed")
    assert 0 < here["bad"] < count == agents["bad"].total("captured")
    got = numbers(lab.path("dump.pcap"))
    assert len(got) == sum(here.values())
    assert sorted(set(got)) == list(range(count))
    assert not lines(agents["good"], AGENT_SAYS)
    check_sums(*agents.values())
    assert {d["verdict"] for d in collector.ledgers() if d["agent"] == "good"} == {"complete"}
    assert {d["verdict"] for d in collector.ledgers() if d["agent"] == "bad" and d["captured"]} \
        == {"unknown"}


def a_certificate_that_expires_ends_the_session_and_a_new_one_begins_the_next(lab):
    count = 80000
    agent_tls(lab, "agent", name="renewed")
    collector = lab.collector()
    end, _ = sign(lab, "short", "tls_www_client", 10, ("agent",))
    agent = lab.agent(tls=live(lab, "agent", lab.path("short")))
    with under_traffic(lab, count, 5000):
        wait_records(lab.path("dump.pcap"), 1000)
        assert datetime.datetime.now(datetime.timezone.utc) < end, "the machine is too slow"
        agent.wait_for("the certificate of this agent has expired", 30)
        stuck = written(lab)
        put(lab, "agent", lab.path("renewed"))
    wait_records(lab.path("dump.pcap"), count, 60)
    assert datetime.datetime.now(datetime.timezone.utc) > end and stuck < count
    assert agent.stop() == 0 and collector.stop() == 0
    check_once_each(numbers(lab.path("dump.pcap")), count)
    check_complete(agent, collector)
    check_same(agent, collector)


def half_of_a_new_pair_changes_nothing(lab):
    count = 20000
    sign(lab, "second", "tls_www_server", 3600)
    collector = lab.collector(tls=live(lab, "collector", f"{lab.pki()}/collector"))
    agent = lab.agent()
    with under_traffic(lab, count, 5000):
        wait_records(lab.path("dump.pcap"), 1000)
        shutil.copy(lab.path("second.crt"), lab.path("live/collector.crt"))
        collector.signal(signal.SIGHUP)
        collector.wait_for("does not belong to the certificate")
        assert served(lab) == "ps-collector"
        shutil.copy(lab.path("second.key"), lab.path("live/collector.key"))
        collector.wait_for(COLLECTOR_LOADED)
        assert served(lab) == "second"
    assert agent.stop() == 0 and collector.stop() == 0
    assert not lines(agent, AGENT_SAYS)
    check_once_each(numbers(lab.path("dump.pcap")), count)
    check_complete(agent, collector)


def a_list_that_is_no_good_is_refused_at_the_start(lab):
    def start(name, crl):
        tls = lab.tls("collector") + f"  crlfile: {crl}\n"
        return lab.start(name, harness.COLLECTOR,
                         "input:\n  address: 127.0.0.1\n  port: 8081\n"
                         f"output:\n  file:\n    path: {lab.path('dump.pcap')}\n{tls}", lab.rx)
    start_fails(lab, start("missing", "/nonexistent"), "tls.crlfile: cannot read")
    start_fails(lab, start("junk", f"{lab.pki()}/ca.crt"),
                "there is no good PEM list of revoked certificates")
    harness.run("certtool", "--generate-crl", "--load-ca-certificate", f"{other_pki(lab)}/ca.crt",
                "--load-ca-privkey", f"{lab.path('other')}/ca.key", "--template",
                lab.file("crl.cfg", "crl_next_update = 1\n"), "--outfile", lab.path("foreign"))
    start_fails(lab, start("foreign", lab.path("foreign")), "is signed by nobody in")


# Shared keys, and sides that do not agree on what to use.

def another_shared_key_is_refused(lab):
    refuse(lab, "the collector has another auth.key", "the agent has another auth.key",
           shared_key(KEY), shared_key(KEY + "!"))


def a_shared_key_does_not_open_a_collector_with_certificates(lab):
    refuse(lab, "one side has auth.key, the other certificates?",
           "wants auth.key where we have a certificate?", None, shared_key(KEY))


def a_certificate_does_not_open_a_collector_with_a_shared_key(lab):
    refuse(lab, "wants auth.key where we have a certificate?",
           "one side has auth.key, the other certificates?", shared_key(KEY), None)


def plain_text_is_refused_by_a_collector_with_tls(lab):
    refuse(lab, "the collector answers with TLS, but tls.enable is false here",
           "the agent does not speak TLS (tls.enable: false there?)", None, PLAIN)


def tls_is_refused_by_a_collector_in_plain_text(lab):
    refuse(lab, "the collector does not speak TLS (tls.enable: false there?)",
           "the peer speaks TLS, tls.enable is false here", PLAIN, None)


def plain_text_has_to_be_spelled_out(lab):
    start_fails(lab, lab.agent(tls="", ready=False), "tls.enable: false", status=2)
    start_fails(lab, lab.start("collector", harness.COLLECTOR,
                               "input:\n  address: 127.0.0.1\n  port: 8081\n"
                               f"output:\n  file:\n    path: {lab.path('dump.pcap')}\n", lab.rx),
                "tls.enable: false", status=2)
    assert not os.path.exists(lab.path("dump.pcap"))


# Clients that are not ours.

def s_client(lab, collector, *options, alert, says):
    done = harness.run("ip", "netns", "exec", lab.rx, "timeout", "20", "openssl", "s_client",
                       "-connect", "127.0.0.1:8081", "-ign_eof", *options,
                       check=False, stdin=harness.subprocess.DEVNULL)
    out = done.stdout.decode(errors="replace")
    assert f"alert {alert}" in out, out
    collector.wait_for(re.escape(says))
    said = lines(collector, COLLECTOR_SAYS)
    assert len(said) == 1 and says in said[0], said
    check_nothing_written(lab, collector)


def credentials(lab):
    pki = lab.pki()
    return "-cert", f"{pki}/agent.crt", "-key", f"{pki}/agent.key"


def a_client_without_a_certificate_is_refused(lab):
    s_client(lab, lab.collector(), "-tls1_3", "-alpn", "ps/1", alert="certificate required",
             says="the agent sent no certificate")


def a_client_of_tls_1_2_is_refused(lab):
    s_client(lab, lab.collector(), "-tls1_2", "-alpn", "ps/1", *credentials(lab),
             alert="protocol version", says="the agent does not speak TLS 1.3")


def a_client_without_alpn_is_refused(lab):
    s_client(lab, lab.collector(), "-tls1_3", *credentials(lab), alert="no application protocol",
             says="the agent speaks TLS but not ps/1")


def a_client_with_another_alpn_is_refused(lab):
    s_client(lab, lab.collector(), "-tls1_3", "-alpn", "h2,http/1.1", *credentials(lab),
             alert="no application protocol", says="the agent speaks TLS but not ps/1")


# What the wire shows.

def sniffed(lab, tls, secrets, name):
    """Send the secrets as packets, one to a message, and return what crossed lo."""
    pcap.write(lab.path("in.pcap"), [
        traffic.ether(0x0800, traffic.ipv4(17, traffic.l4(1111, 2222, 4) + s)) for s in secrets])
    collector = lab.collector(tls=tls, name=name, output=lab.path(f"{name}.pcap"))
    dump = lab.spawn(f"tcpdump-{name}", ["tcpdump", "-i", "lo", "-w", lab.path(f"{name}.lo"),
                                         "-U", "--immediate-mode", "tcp"], ns=lab.rx)
    dump.wait_for("listening on")
    agent = lab.agent("gatherMaxWaitMs: 1\n", tls=tls, name="agent-with-a-name")
    lab.replay(lab.path("in.pcap"), pps=50)
    assert agent.stop() == 0 and collector.stop() == 0
    assert len(pcap.read(lab.path(f"{name}.pcap")).packets) == len(secrets)
    dump.stop()
    payload = b""
    for p in pcap.read(lab.path(f"{name}.lo")).packets:
        tcp = p.data[14 + (p.data[14] & 15) * 4:]
        payload += tcp[(tcp[12] >> 4) * 4:]
    return payload


def inflated(stream):
    """What the bodies of the DATA messages hold, wherever they begin."""
    out, at = b"", stream.find(b"\x1f\x8b\x08")
    while at >= 0:
        try:
            out += zlib.decompressobj(31).decompress(stream[at:at + 65536])
        except zlib.error:
            pass
        at = stream.find(b"\x1f\x8b\x08", at + 1)
    return out


def nothing_of_a_packet_or_a_name_can_be_read_on_the_wire(lab):
    secrets = [random.Random(i).randbytes(64) for i in range(20)]
    shown = sniffed(lab, PLAIN, secrets, "plain")
    assert b"agent-with-a-name" in shown and b"PS\x01\x05" in shown, "the control sees nothing"
    assert all(s in inflated(shown) for s in secrets), "the control sees no packet"
    lab.pki()
    hidden = sniffed(lab, None, secrets, "tls")
    assert len(hidden) > sum(len(s) for s in secrets)
    assert b"agent-with-a-name" not in hidden and b"PS\x01\x05" not in hidden
    hidden += inflated(hidden)
    assert not any(s[i:i + 16] in hidden for s in secrets for i in range(48))


if __name__ == "__main__":
    harness.main([
        certificates_are_accepted,
        a_shared_key_is_accepted,
        plain_text_is_accepted_where_both_sides_spell_it_out,
        a_server_name_of_the_configuration_replaces_the_address,
        an_agent_refuses_a_collector_that_its_ca_did_not_sign,
        a_collector_refuses_an_agent_that_its_ca_did_not_sign,
        an_agent_refuses_a_collector_of_another_name,
        an_agent_refuses_a_collector_whose_certificate_has_expired,
        a_collector_refuses_an_agent_whose_certificate_has_expired,
        neither_side_starts_with_a_certificate_that_has_expired,
        a_collector_refuses_the_certificate_of_a_collector,
        an_agent_refuses_the_certificate_of_an_agent,
        a_name_that_is_not_in_the_certificate_is_refused,
        a_name_in_the_certificate_is_accepted,
        a_name_that_is_the_first_label_is_accepted,
        the_shared_certificate_is_good_for_any_name,
        any_name_is_accepted_where_the_collector_says_so,
        an_agent_that_matches_agents_allow_is_accepted,
        an_agent_that_matches_nothing_in_agents_allow_is_refused,
        certificates_are_swapped_under_traffic_by_a_signal,
        certificates_are_swapped_under_traffic_by_their_files_alone,
        an_agent_whose_certificate_was_replaced_and_revoked_comes_back_with_the_new_one,
        a_revoked_agent_is_disconnected_and_the_others_go_on,
        a_certificate_that_expires_ends_the_session_and_a_new_one_begins_the_next,
        half_of_a_new_pair_changes_nothing,
        a_list_that_is_no_good_is_refused_at_the_start,
        another_shared_key_is_refused,
        a_shared_key_does_not_open_a_collector_with_certificates,
        a_certificate_does_not_open_a_collector_with_a_shared_key,
        plain_text_is_refused_by_a_collector_with_tls,
        tls_is_refused_by_a_collector_in_plain_text,
        plain_text_has_to_be_spelled_out,
        a_client_without_a_certificate_is_refused,
        a_client_of_tls_1_2_is_refused,
        a_client_without_alpn_is_refused,
        a_client_with_another_alpn_is_refused,
        nothing_of_a_packet_or_a_name_can_be_read_on_the_wire])
