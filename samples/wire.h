/* SPDX-License-Identifier: MIT */
/* What is on the wire: Ethernet, ARP, IPv4, ICMP and TCP as far as net.c speaks them. */
#ifndef SAMPLES_WIRE_H
#define SAMPLES_WIRE_H

#include <hypercall/net.h>

#define be16(x) __builtin_bswap16(x)
#define be32(x) __builtin_bswap32(x)

#define PROTO_ICMP 1
#define PROTO_TCP 6

enum { FIN = 1, SYN = 2, RST = 4, PSH = 8, ACK = 16 };

/* A frame as it is on the wire: fields are big-endian. */
struct frame {
	keel_u8 to[6], from[6];
	keel_u16 type;
	union {
		struct {
			keel_u16 hardware, protocol;
			keel_u8 hardware_len, protocol_len;
			keel_u16 op;
			keel_u8 from_mac[6];
			keel_u32 from_ip;
			keel_u8 to_mac[6];
			keel_u32 to_ip;
		} __attribute__((packed)) arp;
		struct {
			keel_u8 version_len, tos;
			keel_u16 len, id, fragment;
			keel_u8 ttl, proto;
			keel_u16 sum;
			keel_u32 from, to;
			union {
				struct {
					keel_u8 type, code;
					keel_u16 sum;
				} __attribute__((packed)) icmp;
				struct {
					keel_u16 from, to;
					keel_u32 seq, ack;
					keel_u8 len, flags;
					keel_u16 window, sum, urgent;
					char data[KEEL_NET_FRAME - 14 - 20 - 20];
				} __attribute__((packed)) tcp;
			};
		} __attribute__((packed)) ip;
	};
} __attribute__((packed));
KEEL_ASSERT_SIZE(struct frame, KEEL_NET_FRAME);

#define ETH_BYTES 14
#define IP_BYTES 20
#define TCP_BYTES 20
#define ARP_BYTES 28

/* The Internet's sum over 16-bit words, on top of what was summed before. */
static inline keel_u32 sum(keel_u32 before, const void *p, keel_u32 len)
{
	const keel_u8 *b = p;

	for (keel_u32 i = 0; i < len; i++)
		before += i & 1 ? b[i] : (keel_u32)b[i] << 8;
	return before;
}

static inline keel_u16 fold(keel_u32 s)
{
	while (s >> 16)
		s = (s & 0xffff) + (s >> 16);
	return be16((keel_u16)~s);
}

/* Sum over a TCP segment and what of the IP header it covers. */
static inline keel_u16 tcp_sum(const struct frame *f, keel_u32 len)
{
	return fold(sum(sum(PROTO_TCP + len, &f->ip.from, 8), &f->ip.tcp, len));
}

#endif
