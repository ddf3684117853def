/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every primitive of pcap-filter(7), in the order of that page, and combinations. Tests
 * compile each for Ethernet and for raw IP and skip what libpcap has for one of them only;
 * what is here libpcap has for Ethernet at least. Addresses and numbers are such that
 * packets of the captures in ../shared/traffic match.
 */
#ifndef PS_EXPRESSIONS_H
#define PS_EXPRESSIONS_H

/* A list to read. */
/* clang-format off */
static const char *const expressions[] = {
	"",
	/* hosts */
	"dst host 192.168.1.1", "src host 192.168.1.1", "host 192.168.1.1", "host 10.0.0.1",
	"src 192.168.1.2", "dst 192.168.1.2", "src or dst host 192.168.1.1",
	"src and dst host 192.168.1.1", "src or dst 10.0.0.1", "ip host 192.168.1.1",
	"arp host 192.168.1.1", "rarp host 192.168.1.1", "ip src host 192.168.1.1",
	"arp dst host 192.168.1.1", "host fe80::1", "src host fe80::1", "dst host ff02::1",
	"ip6 host 2001:db8::1", "host ::1", "ip6 src host fe80::1", "host localhost",
	"ip host localhost", "host 224.0.0.2", "dst host 255.255.255.255", "host 0.0.0.0",
	"ip6 src or dst host ff02::2", "ip6 src and dst host ::1",
	/* Ethernet addresses */
	"ether dst ff:ff:ff:ff:ff:ff", "ether src 00:00:5e:00:01:01", "ether host 01:80:c2:00:00:0e",
	"ether host 01.80.c2.00.00.00", "ether host 01-00-0c-cc-cc-cc", "ether host 0100.5e00.0002",
	"ether host 01005e000005", "ether src or dst ff:ff:ff:ff:ff:ff", "ether src and dst 00:00:00:00:00:00",
	"fddi src 00:00:5e:00:01:01", "tr dst ff:ff:ff:ff:ff:ff", "wlan host 01:80:c2:00:00:0e",
	"link host 01:80:c2:00:00:0e",
	/* networks */
	"dst net 192.168.1.0", "src net 192.168.0.0/16", "net 192.168.0.0/16", "net 10", "net 172.16",
	"net 192.168.1", "net 192.168.1.0 mask 255.255.255.0", "src net 10.0.0.0 mask 255.0.0.0",
	"dst net 224.0.0.0/4", "net 0.0.0.0/0", "net 128.0.0.0/1", "ip net 10.0.0.0/8",
	"arp net 192.168.0.0/16", "rarp net 10.0.0.0/8", "net fe80::/10", "src net 2001:db8::/32",
	"dst net ff00::/8", "ip6 net fe80::/64", "net ::/0", "net 2000::/3", "net 2001:db8:0:1::/64",
	"src or dst net 10.0.0.0/8", "src and dst net 192.168.0.0/16", "net fe80::/65", "net ff02::/96",
	"src and dst net fe80::/10", "net 10.0.0.0/9", "net 192.168.1.128/25", "dst net 239.255.255.250/32",
	/* ports */
	"dst port 80", "src port 80", "port 80", "port 53", "tcp port 80", "udp port 53", "sctp port 2905",
	"tcp src port 443", "tcp dst port 443", "udp src port 53", "udp dst port 67", "port domain",
	"port http", "tcp port http", "src or dst port 443", "src and dst port 123", "port 443 or 80",
	"port (80 or 443 or 53)", "not port 53", "tcp dst port ftp or ssh or domain", "udp port 4789",
	"udp port 6081", "port ntp", "sctp src port 7", "ip6 and port 53", "ip and port 53",
	"portrange 6000-6008", "dst portrange 0-1023", "src portrange 1024-65535", "portrange 53-53",
	"tcp portrange 80-443", "udp dst portrange 33434-33534", "sctp portrange 1-65535",
	"src or dst portrange 67-68", "src and dst portrange 1-200", "udp portrange ftp-domain",
	"port 0", "port 65535", "portrange 0-65535", "tcp or udp portrange 20-25",
	/* lengths */
	"less 60", "less 100", "greater 60", "greater 1000", "greater 0", "len <= 100", "len >= 1500",
	"len = 60", "len != 60", "length > 200", "len > 65535", "not less 200",
	/* protocols */
	"ip proto 6", "ip proto \\tcp", "ip proto \\udp", "ip proto 89", "ip proto ospf", "ip proto 47",
	"icmp", "ip6 proto 17", "ip6 proto \\ipv6-icmp", "ip6 proto 0", "ip6 proto 43",
	"ip6 proto 44", "icmp6", "proto 6", "proto \\udp", "proto 132", "proto 41", "proto gre", "ah", "esp",
	"pim", "sctp", "tcp", "udp", "igmp", "igrp", "vrrp", "carp", "ip6 protochain 6",
	"ip6 protochain 17", "ip6 protochain 58", "ip protochain 6", "ip protochain 51", "protochain 17",
	"protochain 6 and port 80", "not ip6 protochain 0", "ip6 protochain 43", "ip6 protochain 44",
	"ip6 protochain 59", "protochain \\tcp or protochain \\udp", "ip6 protochain 50",
	/* broadcast and multicast */
	"ether broadcast", "broadcast", "ether multicast", "multicast", "ip multicast",
	"ip6 multicast", "not broadcast and not multicast", "ip multicast and not ether multicast",
	/* link layer protocols */
	"ether proto 0x800", "ether proto \\ip", "ether proto \\ip6", "ether proto \\arp",
	"ether proto \\rarp", "ether proto \\aarp", "ether proto \\atalk", "ether proto \\decnet",
	"ether proto \\ipx", "ether proto \\iso", "ether proto \\lat", "ether proto loopback",
	"ether proto \\mopdl", "ether proto \\moprc", "ether proto \\netbeui", "ether proto \\sca",
	"ether proto \\stp", "ether proto 0x88cc", "ether proto 0x8847", "ether proto 0x88f7",
	"ether proto 100", "ether proto 0x8100", "ip", "ip6", "arp", "rarp", "atalk", "aarp", "decnet",
	"iso", "stp", "ipx", "netbeui", "lat", "moprc", "mopdl", "sca", "decnet src 10.15",
	"decnet dst 10.15", "decnet host 10.15", "llc", "llc i", "llc s", "llc u", "llc rr", "llc rnr",
	"llc rej", "llc ui", "llc ua", "llc disc", "llc sabme", "llc test", "llc xid", "llc frmr",
	/* tags, labels, sessions, tunnels */
	"vlan", "vlan 100", "vlan 1", "vlan and ip", "vlan 100 and tcp port 80", "vlan and vlan",
	"vlan 100 and vlan 200", "vlan and vlan 300 and ip", "vlan or ip", "not vlan", "vlan and not ip",
	"vlan and arp", "vlan and ip6", "vlan and host 192.168.1.1", "vlan and udp port 53",
	"ip or vlan and ip", "(vlan and tcp) or tcp", "vlan and ether proto 0x800", "vlan and icmp",
	"vlan and vlan and vlan", "vlan and vlan and ip and tcp", "tcp or (vlan and (tcp or udp))",
	"mpls", "mpls 100000", "mpls 16", "mpls and mpls", "mpls and ip", "mpls and mpls and host 10.1.1.1",
	"mpls 29 and host 10.31.0.1", "vlan and mpls", "mpls and ip6", "mpls and icmp", "pppoed", "pppoes", "pppoes 0x27",
	"pppoes and ip", "pppoes and ip6", "pppoes and tcp port 80", "pppoes 1 and udp", "vlan and pppoes",
	"vlan and pppoes and ip", "geneve", "geneve 0xb", "geneve and ip", "geneve and ip6",
	"geneve and tcp port 80", "geneve and icmp", "geneve 10 and tcp", "geneve and host 192.168.0.1",
	"not geneve", "geneve and ether host 00:00:00:00:00:01", "geneve and vlan",
	/* OSI */
	"iso proto 0x81", "iso proto \\clnp", "iso proto \\esis", "iso proto \\isis", "clnp", "esis",
	"es-is", "isis", "is-is", "l1", "l2", "iih", "lsp", "snp", "csnp", "psnp", "isis proto 18",
	"l2 and lsp", "isis and not iih",
	/* arithmetic */
	"ether[0] & 1 != 0", "ether[0] & 1 = 0 and ip[16] >= 224", "ip[0] & 0xf != 5",
	"ip[6:2] & 0x1fff = 0", "tcp[tcpflags] & (tcp-syn|tcp-fin) != 0", "tcp[13] = 2",
	"tcp[tcpflags] & (tcp-rst|tcp-ack) == (tcp-rst|tcp-ack)", "tcp[tcpflags] = tcp-syn",
	"tcp port 80 and (((ip[2:2] - ((ip[0]&0xf)<<2)) - ((tcp[12]&0xf0)>>2)) != 0)",
	"ip[2:2] > 576", "icmp[icmptype] != icmp-echo and icmp[icmptype] != icmp-echoreply",
	"icmp[icmptype] = icmp-unreach", "icmp[icmpcode] = 0", "icmp[icmptype] = icmp-timxceed",
	"icmp6[icmp6type] != icmp6-echo and icmp6[icmp6type] != icmp6-echoreply",
	"icmp6[icmp6type] = icmp6-neighborsolicit", "icmp6[icmp6code] = 0", "icmp6[0] = 134",
	"tcp[tcpflags] & (tcp-push|tcp-urg|tcp-ece|tcp-cwr) != 0", "ip[8] < 5", "ip[8] = 64",
	"ip[9] = 6 and ip[0] >> 4 = 4", "ip[12:4] = 0xc0a80101", "ip[16:4] & 0xf0000000 = 0xe0000000",
	"ip6[6] = 6", "ip6[0] >> 4 = 6", "ip6[4:2] > 100", "ip6[40] = 0x87", "ip6[7] = 255",
	"udp[4:2] > 100", "udp[0:2] = 53", "udp[8:2] & 0x8000 != 0", "udp[8] = 0x08", "sctp[0:2] > 1000",
	"sctp[12] = 1", "igmp[0] = 0x16", "pim[0] = 0x20", "vrrp[0] & 0xf = 1", "carp[0] = 1", "arp[6:2] = 1",
	"arp[7] = 2", "rarp[6:2] = 3", "igrp[0] = 1", "atalk[0] = 0", "decnet[0] = 0", "lat[0] = 0", "sca[0] = 0",
	"mopdl[0] = 0", "moprc[0] = 0", "link[0] = 1", "ether[12:2] = 0x800", "ether[12:4] = 0x08004500",
	"ether[10:4] > 0x1000000", "ether[11:2] & 0xff = 8", "ether[13:2] = 0x45", "ether[14:4] & 0xffff = 60",
	"ether[9:4] & 0xff = 0x81", "ether[15:2] = 0x800", "ether[15:4] != 0", "ether[13:4] > 5",
	"ether[12] = 0x81", "ether[13] = 0", "ether[14] & 0xf0 != 0", "ether[15] = 100", "ether[16:2] = 0x800",
	"ether[11:4] = 0", "ether[8:4] = 0", "ether[8] = 0", "ether[17] = 0", "fddi[0] = 1", "tr[0] & 1 = 1",
	"wlan[0] & 1 = 1", "ppp[0] = 1", "slip[0] = 1",
	/* with computed offsets and all operators */
	"ether[len - 1] = 0", "ether[len - 2:2] = 0", "ether[len - 4:4] = 0", "ether[len] = 0",
	"ether[ether[20] & 0xf] = 0", "ether[ether[14] & 0xf:2] > 0x100", "ether[ether[14] & 0xf:4] > 0x1000",
	"ether[(ether[14] & 7) + 8:4] & 0xff > 3", "ether[(ether[20] & 7) + 9:2] = 0x800",
	"ether[(ether[25] & 7) + 9] = 8", "ether[(ip[1] & 7) + 10:4] > 0", "ip[ip[0] & 0xf] = 0",
	"ip[(ip[0] & 0xf) << 2:2] = 443", "tcp[(tcp[12] >> 4) * 4:4] = 0x47455420", "ip[ip[2:2] - 1] = 0",
	"udp[udp[4:2] - 1] = 0", "len - ip[2:2] = 14", "len - 14 > ip[2:2]", "ip[2:2] + 14 = len",
	"len * 2 > 300", "len / 2 > 100", "len % 2 = 1", "len ^ 1 = 61", "len | 1 = 61", "len & 63 = 60",
	"len << 1 > 400", "len >> 5 = 1", "len / ip[8] > 2", "len % ip[8] = 0", "ip[1] / ip[1] = 1",
	"len % ip[1] = 0", "ip[0] << ip[1] = 0x45", "ip[0] >> ip[8] = 0", "ip[0] << ip[8] = 0",
	"ip[8] << ip[9] > 100", "ip[2:2] >> (ip[8] & 7) = 0", "-ip[0] = 0xffffffbb", "0 - ip[0] > 5",
	"- len < 0xffffff00", "ip[8] * ip[8] * ip[8] * ip[8] * ip[8] > 1000000000", "ip[12:4] * 3 > ip[16:4]",
	"ip[12:4] - ip[16:4] < 0x80000000", "ip[12:4] ^ ip[16:4] < 65536", "ip[12:4] | 1 = ip[16:4]",
	"ip[12:4] = ip[16:4]", "ip[12:4] > ip[16:4]", "ip[12:4] >= ip[16:4]", "ip[12:4] < ip[16:4]",
	"ip[12:4] <= ip[16:4]", "ip[12:4] != ip[16:4]", "ip[12:4] & ip[16:4] != 0", "tcp[0:2] == tcp[2:2]",
	"ether[ip[12:4]] = 0", "ether[ip[16:4]:4] = 0", "ip[0xf0000000] = 0", "ether[0x7fffffff] = 0",
	"ether[0x80000000:4] = 0", "ether[5000] = 0", "ether[20000] = 0", "ether[70000:2] = 0",
	"not ether[5000] = 0", "not ether[60] = 0", "ether[60] = 0 or ip", "ip[100:4] = 0", "ip[1400] = 0",
	"ether[len & 31:2] > 0x800", "ether[(len & 15) + 5:4] > 0x08000000", "ether[(len & 7) + 9:2] != 0",
	"ether[len % 16] & 1 = 1", "ether[(len % 5) + 11:4] > 77", "ether[(len % 9) + 8:1] > 8",
	/* combinations */
	"tcp and not port 22", "host 192.168.1.1 and not port 53", "tcp port 80 or udp port 53",
	"(tcp or udp) and port 53", "not (tcp or udp)", "ip and not tcp and not udp and not icmp",
	"tcp && port 80 || udp && port 53", "! tcp", "!(tcp || udp)", "ip or ip6 or arp",
	"not host 192.168.1.1 and 192.168.1.2", "host 10.0.0.1 or 10.0.0.2 or 192.168.1.1",
	"net 10.0.0.0/8 or 172.16.0.0/12 or 192.168.0.0/16",
	"host 192.168.1.1 and (port 53 or port 80 or port 443)", "ip6 and tcp and dst port 443",
	"tcp[tcpflags] & tcp-syn != 0 and tcp[tcpflags] & tcp-ack = 0 and not src net 10.0.0.0/8",
	"udp port 53 and udp[10] & 0x80 = 0", "ether proto 0x88cc or stp or ether host 01:00:0c:cc:cc:cc",
	"(arp and arp[7] = 1) or (icmp and icmp[0] = 8) or (icmp6 and icmp6[0] = 135)",
	"tcp port 443 and host 10.0.0.5 or vlan 7", "ip and len > 100 and ip[8] > 10 and not port 80",
	"(ip and udp and (port 67 or port 68)) or (ip6 and udp and (port 546 or port 547))",
	"not (port 22 or port 80 or port 443 or port 53 or port 123 or port 67 or port 68 or port 25)",
	"ip multicast or ip6 multicast or ether broadcast", "greater 100 and less 500 and tcp",
	"ip proto 4 or ip proto 41 or proto 47 or udp port 4789 or udp port 6081",
	"ether src 00:00:5e:00:01:01 or ether dst ff:ff:ff:ff:ff:ff and arp", "icmp or icmp6 or igmp or pim or vrrp",
	"src net 192.168.0.0/16 and dst net not 192.168.0.0/16", "udp and not multicast and not broadcast",
	"src host 192.168.1.1 and dst port 53 or src port 53 and dst host 192.168.1.1",
};
/* clang-format on */

#endif
