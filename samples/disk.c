// SPDX-License-Identifier: MIT
/*
 * disk - checksums the first disk, rewrites all of it, flushes, and reads it back.
 *
 * The checksum is CRC-32 as in gzip and zlib, of the whole disk. Rewriting XORs each 64-bit
 * word of sector s with (s + 1) * 0x9e3779b97f4a7c15, so a second run restores the disk.
 * With "read" on the command line, and on a read-only disk, nothing is written.
 *
 * 32 requests of 64 KiB are under way at a time; "depth=N" changes that, down to
 * one after the other. Lines that begin with "# " are measurements. It needs a disk:
 *
 *	keel run --disk file=FILE build/samples/disk.elf
 */
#include <hypercall/blk.h>

KEEL_IMAGE_NOTES(KEEL_NEEDS(BASE) | KEEL_NEEDS(CONSOLE) | KEEL_NEEDS(TRAP) | KEEL_NEEDS(EVENT) | KEEL_NEEDS(VCPU) |
			 KEEL_NEEDS(TIME) | KEEL_NEEDS(DEVICE),
		 0, 0, KEEL_U64(1) << KEEL_F1_CLOCK_PAGE);

#define DEPTH 32
#define CHUNK 65536
#define SECTOR KEEL_BLK_SECTOR

static struct keel_blk disk;
static keel_u64 crc_table[8][256];

/* A chunk of the disk on its way in, and out again when it is rewritten. */
static struct slot {
	enum { FREE, READING, READ, WRITING } state;
	struct keel_blk_req req;
	keel_u64 sector;
	keel_u32 bytes;
} slots[DEPTH];
static keel_u8 data[DEPTH][CHUNK] __attribute__((aligned(4096)));
static unsigned int depth = DEPTH;

/* Table k: what a byte does to the CRC with k bytes behind it. */
static void crc_init(void)
{
	for (keel_u32 i = 0; i < 256; i++) {
		keel_u32 c = i;

		for (int bit = 0; bit < 8; bit++)
			c = c >> 1 ^ (c & 1 ? 0xedb88320 : 0);
		crc_table[0][i] = c;
	}
	for (int k = 1; k < 8; k++) {
		for (keel_u32 i = 0; i < 256; i++)
			crc_table[k][i] = crc_table[k - 1][i] >> 8 ^ crc_table[0][crc_table[k - 1][i] & 0xff];
	}
}

/* Of whole words; a CRC of nothing is 0. */
static keel_u32 crc_add(keel_u32 crc, const keel_u8 *from, keel_u32 bytes)
{
	keel_u64 c = (keel_u32)~crc;

	for (keel_u32 i = 0; i < bytes; i += 8) {
		keel_u64 w = c ^ *(const keel_u64 *)(from + i);

		c = 0;
		for (int k = 0; k < 8; k++)
			c ^= crc_table[7 - k][w >> 8 * k & 0xff];
	}
	return ~(keel_u32)c;
}

static void scramble(keel_u8 *at, keel_u64 sector, keel_u32 bytes)
{
	for (keel_u32 i = 0; i < bytes; i += 8)
		*(keel_u64 *)(at + i) ^= (sector + i / SECTOR + 1) * KEEL_U64(0x9e3779b97f4a7c15);
}

static void must(keel_s64 status, const char *what)
{
	keel_must_((struct keel_ret){ status, 0 }, what);
}

static keel_u8 *data_of(const struct slot *s)
{
	return data[s - slots];
}

static void submit(struct slot *s, enum keel_blk_op op)
{
	s->state = op == KEEL_BLK_READ ? READING : WRITING;
	s->req.cookie = s;
	must(keel_blk_submit(&disk, &s->req, op, s->sector, keel_gpa_of(data_of(s)), s->bytes), "submit");
}

static void finished(struct slot *s)
{
	if (s->req.result)
		keel_panic("sector %lu: the disk cannot %s", (unsigned long)s->sector,
			   s->state == READING ? "read" : "write");
	s->state = s->state == READING ? READ : FREE;
}

/* The sums of a pass over the disk. */
struct sums {
	keel_u32 crc, scrambled; /* as it was; as it was written */
};

/* Read the whole disk, in order, and write it scrambled if `rewrite` says so. */
static struct sums pass(bool rewrite)
{
	const keel_u64 end = disk.sectors;
	keel_u64 asked = 0, summed = 0;
	struct sums sums = { 0, 0 };
	struct keel_blk_req *req;
	unsigned int ask = 0, sum = 0, busy = 0;

	while (summed < end || busy) {
		/* Reads are done in any order, and summed in that of the disk. */
		for (; slots[sum].state == READ; sum = (sum + 1) % depth) {
			struct slot *s = &slots[sum];

			sums.crc = crc_add(sums.crc, data_of(s), s->bytes);
			summed += s->bytes / SECTOR;
			if (!rewrite) {
				s->state = FREE;
				busy--;
				continue;
			}
			scramble(data_of(s), s->sector, s->bytes);
			sums.scrambled = crc_add(sums.scrambled, data_of(s), s->bytes);
			submit(s, KEEL_BLK_WRITE);
		}
		for (; asked < end && slots[ask].state == FREE; ask = (ask + 1) % depth) {
			keel_u64 left = (end - asked) * SECTOR;
			struct slot *s = &slots[ask];

			s->sector = asked;
			s->bytes = left < CHUNK ? (keel_u32)left : CHUNK;
			asked += s->bytes / SECTOR;
			busy++;
			submit(s, KEEL_BLK_READ);
		}
		must(keel_blk_kick(&disk), "kick");
		if (!busy)
			continue;
		must(keel_blk_wait(&disk, KEEL_TIME_NEVER), "wait");
		while ((req = keel_blk_poll(&disk))) {
			finished(req->cookie);
			busy -= ((struct slot *)req->cookie)->state == FREE;
		}
	}
	return sums;
}

/* MB per second. */
static void report(const char *what, keel_u64 since)
{
	keel_u64 us = (keel_time() - since) / 1000 + 1;

	keel_printf("# %s in %lu us, %lu MB/s\n", what, (unsigned long)us, (unsigned long)(disk.sectors * SECTOR / us));
}

/* 1 to DEPTH. */
static unsigned int depth_of(const char *s)
{
	unsigned int n = 0;

	while (*s >= '0' && *s <= '9' && n < DEPTH)
		n = n * 10 + (unsigned int)(*s++ - '0');
	return n < 1 ? 1 : n > DEPTH ? DEPTH : n;
}

int keel_main(const struct keel_start *start)
{
	const char *cmdline = keel_start_cmdline(start);
	char number[8];
	struct sums before, written, after;
	keel_u64 since;
	keel_u32 port;
	keel_s64 status;

	if (keel_cmdline_get(cmdline, "depth", number, sizeof(number)) > 0)
		depth = depth_of(number);
	crc_init();
	must(keel_event_init(), "event_init");
	must(keel_dev_port(3, NULL, NULL, &port), "event_alloc");
	status = keel_blk_init(&disk, 0, port);
	if (KEEL_STATUS_CODE(status) == KEEL_E_NOENT) {
		keel_puts("There is no disk; give me one with --disk file=FILE.");
		return 1;
	}
	must(status, "the disk");
	keel_printf("disk of %lu MB, %lu sectors%s\n", (unsigned long)(disk.sectors * SECTOR / 1000000),
		    (unsigned long)disk.sectors, disk.readonly ? ", read-only" : "");

	since = keel_time();
	before = pass(false);
	report("read", since);
	keel_printf("CRC-32 %08x\n", before.crc);
	if (disk.readonly || keel_cmdline_get(cmdline, "read", NULL, 0) >= 0)
		return 0;

	since = keel_time();
	written = pass(true);
	must(keel_blk_flush(&disk), "flush");
	report("read, rewritten and flushed", since);
	after = pass(false);
	keel_printf("CRC-32 %08x\n", after.crc);
	if (written.crc != before.crc || after.crc != written.scrambled) {
		keel_puts("which is not what was written");
		return 1;
	}
	keel_puts("rewritten");
	return 0;
}
