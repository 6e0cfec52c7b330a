/* SPDX-License-Identifier: MIT */
/* What the two ends of a measured stream agree on. */
#ifndef KEEL_BENCH_STREAM_H
#define KEEL_BENCH_STREAM_H

#include <stdint.h>

#define STREAM_BUFFER (128 << 10) /* bytes of each write and read, at both ends */

/* The first bytes of a connection, to who connected. */
struct order {
	uint8_t what;
	uint8_t tenths; /* of a second, to send for */
};

#define STREAM_END 0
#define STREAM_SEND 1
#define STREAM_RECEIVE 2

#endif
