// SPDX-License-Identifier: MIT
/*
 * Disks (virtio 5.2) on files and block devices. All I/O is asynchronous through
 * one io_uring, in whose wait the doorbell is one more request: a round of the thread
 * is one system call however many requests it submits and completes. Where there is
 * no io_uring, or it may not be used, the same requests are made one by one.
 *
 * The ring is restricted to reading, writing, syncing and polling two registered
 * files, so what the filter cannot see of its requests it need not.
 *
 * A flush is an fdatasync. A driver that did not accept flushes has every write synced.
 */
#include <sys/uio.h>
/* The kernel's header, which liburing's includes, has them too. */
#undef RWF_HIPRI
#undef RWF_DSYNC
#undef RWF_SYNC
#undef RWF_NOWAIT
#undef RWF_APPEND
#include <liburing.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "../monitor/bugs.h"
#include "../partition.h"
#include "device.h"

/* virtio 5.2.3 */
#define F_SEG_MAX 2
#define F_RO 5
#define F_BLK_SIZE 6
#define F_FLUSH 9

#define SECTOR 512
#define ID_BYTES 20
#define BOUNCE (64 * 1024)
#define LOCK_WAIT_MS 2000
#define RING_ENTRIES (2 * DEVICE_QUEUE_MAX)
#define BATCH_BYTES (256 * 1024) /* longer than this to copy, and a batch is begun, and given back, by parts */

/* The registered files. */
#define FILE_DISK 0
#define FILE_BELL 1
#define FILES 2

enum request_type { READ = 0, WRITE = 1, FLUSH = 4, GET_ID = 8 };
enum request_status { STATUS_OK = 0, STATUS_IOERR = 1, STATUS_UNSUPP = 2 };

struct header {
	uint32_t type, reserved;
	uint64_t sector;
};

struct config {
	uint64_t capacity; /* sectors */
	uint32_t size_max, seg_max;
	uint8_t geometry[4];
	uint32_t blk_size;
};

/* One in flight; its chain's pieces stay as they are, `data` is what is left to move. */
struct request {
	struct vq_chain c;
	uint32_t type;
	uint8_t *status;
	struct iovec data[VQ_PIECES];
	unsigned int first, pieces;
	uint64_t offset;
	uint32_t done;	      /* bytes */
	struct request *next; /* free */
};

struct block {
	int fd;
	bool ro, direct, failed_once;
	uint64_t size;
	struct io_uring ring;
	bool have_ring, polling, rang; /* rang: the doorbell did, while a batch was begun */
	size_t begun;		       /* bytes to move, since it was last looked what is done */
	struct request *requests, *free;
	unsigned int in_flight, used; /* requests; of these the first `used` were ever taken */
	struct seal_rule rules[6];
	uint8_t *bounce; /* for buffers that direct I/O does not take */
};

static struct block *block_of(struct device *d)
{
	return d->state;
}

/* Opening */

static int parse(struct device *d, const char *spec, char *file, size_t n, struct error *e)
{
	struct block *b = block_of(d);
	const char *at = spec;

	*file = '\0';
	while (*at) {
		const size_t len = strcspn(at, ",");

		if (len > 5 && !memcmp(at, "file=", 5)) {
			if (len - 5 >= n)
				return error_set(e, "--disk %s: the file's name is too long", spec);
			snprintf(file, n, "%.*s", (int)len - 5, at + 5);
		} else if (len == 2 && !memcmp(at, "ro", 2)) {
			b->ro = true;
		} else if (len == 10 && !memcmp(at, "cache=none", 10)) {
			b->direct = true;
		} else if (len != 15 || memcmp(at, "cache=writeback", 15)) {
			return error_set(e, "--disk %s: \"%.*s\" is none of file=FILE, ro, cache=writeback, cache=none",
					 spec, (int)len, at);
		}
		at += len + (at[len] == ',');
	}
	return *file ? 0 : error_set(e, "--disk %s: no file=FILE", spec);
}

/*
 * Two writers, or a writer and a reader, of one disk would end it. A process that is gone has the lock for as
 * long as its ring has requests, which is right, and until the kernel gets around to taking that down.
 */
static int lock(struct block *b)
{
	const struct timespec ms = { .tv_nsec = 1000000 };

	for (int left = LOCK_WAIT_MS; flock(b->fd, (b->ro ? LOCK_SH : LOCK_EX) | LOCK_NB); left--) {
		if (errno != EWOULDBLOCK || !left)
			return -1;
		nanosleep(&ms, NULL);
	}
	return 0;
}

static int open_file(struct block *b, const char *file, struct error *e)
{
	struct stat st;
	off_t size;

	b->fd = open(file, (b->ro ? O_RDONLY : O_RDWR) | (b->direct ? O_DIRECT : 0) | O_CLOEXEC);
	if (b->fd < 0 && errno == EINVAL && b->direct)
		return error_set(e, "--disk %s: its file system has no direct I/O; use cache=writeback", file);
	if (b->fd < 0)
		return error_set(e, "--disk %s: %s", file, strerror(errno));
	if (fstat(b->fd, &st) || (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)))
		return error_set(e, "--disk %s: neither a file nor a block device", file);
	if (lock(b))
		return error_set(e, "--disk %s: in use: %s", file, strerror(errno));
	size = lseek(b->fd, 0, SEEK_END);
	if (size < SECTOR)
		return error_set(e, "--disk %s: smaller than a sector of %d bytes", file, SECTOR);
	b->size = (uint64_t)size / SECTOR * SECTOR;
	return 0;
}

/* 0, or a negative errno: then there is no ring. */
static int open_ring(struct device *d)
{
	struct block *b = block_of(d);
	const int files[FILES] = { [FILE_DISK] = b->fd, [FILE_BELL] = d->bell };
	struct io_uring_restriction r[] = {
		{ .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_READV },
		{ .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_WRITEV },
		{ .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_FSYNC },
		{ .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_POLL_ADD },
		{ .opcode = IORING_RESTRICTION_SQE_FLAGS_REQUIRED, .sqe_flags = IOSQE_FIXED_FILE },
	};
	int err = io_uring_queue_init(RING_ENTRIES, &b->ring, IORING_SETUP_R_DISABLED);

	if (err)
		return err;
	err = io_uring_register_files(&b->ring, files, FILES);
	if (!err)
		err = io_uring_register_restrictions(&b->ring, r, sizeof(r) / sizeof(r[0]));
	if (!err)
		err = io_uring_enable_rings(&b->ring);
	if (err)
		io_uring_queue_exit(&b->ring);
	return err;
}

static int block_open(struct device *d, const char *spec, struct error *e)
{
	struct block *b = block_of(d);
	struct config c = { .seg_max = DEVICE_QUEUE_MAX - 2, .blk_size = SECTOR };
	char file[4096];
	int err;

	b->fd = -1;
	if (parse(d, spec, file, sizeof(file), e) || open_file(b, file, e))
		return -1;
	err = open_ring(d);
	b->have_ring = !err;
	if (err)
		host_verbose("disk %u: no io_uring (%s): one request at a time", d->index, strerror(-err));
	b->requests = mmap(NULL, DEVICE_QUEUE_MAX * sizeof(*b->requests), PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (b->requests == MAP_FAILED)
		b->requests = NULL;
	if (!b->requests || (b->direct && posix_memalign((void **)&b->bounce, 4096, BOUNCE)))
		return error_set(e, "out of memory");
	c.capacity = b->size / SECTOR;
	memcpy(d->config, &c, sizeof(c));
	d->config_size = sizeof(c);
	d->features[0] |= 1u << F_SEG_MAX | 1u << F_BLK_SIZE | 1u << F_FLUSH | (b->ro ? 1u << F_RO : 0);
	return 0;
}

static void block_close(struct device *d)
{
	struct block *b = block_of(d);

	if (b->have_ring)
		io_uring_queue_exit(&b->ring);
	if (b->requests)
		munmap(b->requests, DEVICE_QUEUE_MAX * sizeof(*b->requests));
	free(b->bounce);
	if (b->fd >= 0)
		close(b->fd);
}

/* Requests */

static void finish(struct device *d, struct request *r, enum request_status status)
{
	struct block *b = block_of(d);

	*r->status = (uint8_t)status;
	vq_push(&d->queue[0], &r->c, KEEL_BUG(62) ? 0 : r->done + 1);
	r->next = b->free;
	b->free = r;
	b->in_flight--;
}

/* Said once: a disk that is full or broken fails thousands of times. */
static void failed(struct device *d, const struct request *r, int err)
{
	struct block *b = block_of(d);

	if (!b->failed_once)
		host_say("disk %u: %s at byte %lu: %s", d->index,
			 r->type == WRITE  ? "writing"
			 : r->type == READ ? "reading"
					   : "flushing",
			 r->offset, strerror(err));
	b->failed_once = true;
}

/* `n` bytes more of it are done: what is left is `data`. */
static void advance(struct request *r, size_t n)
{
	r->offset += n;
	if (r->type == READ)
		r->done += (uint32_t)n;
	while (r->first < r->pieces && n >= r->data[r->first].iov_len)
		n -= r->data[r->first++].iov_len;
	if (n) {
		r->data[r->first].iov_base = (uint8_t *)r->data[r->first].iov_base + n;
		r->data[r->first].iov_len -= n;
	}
}

/* Sync each write of a driver that does not flush. */
static int write_flags(const struct device *d)
{
	return device_accepted(d, F_FLUSH) || KEEL_BUG(65) ? 0 : RWF_DSYNC;
}

static void submit(struct device *d, struct request *r);

/* The kernel's answer to a request. */
static void answered(struct device *d, struct request *r, int res)
{
	if (res == -EINTR || res == -EAGAIN) {
		submit(d, r);
	} else if (res < 0 || (res == 0 && r->type != FLUSH)) {
		failed(d, r, res ? -res : EIO);
		finish(d, r, STATUS_IOERR);
	} else if (r->type == FLUSH) {
		finish(d, r, STATUS_OK);
	} else {
		advance(r, (size_t)res);
		if (r->first < r->pieces)
			submit(d, r);
		else
			finish(d, r, STATUS_OK);
	}
}

static bool aligned(const struct request *r)
{
	for (unsigned int i = r->first; i < r->pieces; i++)
		if (((uintptr_t)r->data[i].iov_base | r->data[i].iov_len) % SECTOR)
			return false;
	return true;
}

static int do_io(struct device *d, struct request *r)
{
	struct block *b = block_of(d);
	ssize_t n;

	switch (r->type) {
	case READ:
		n = preadv2(b->fd, r->data + r->first, (int)(r->pieces - r->first), (off_t)r->offset, 0);
		break;
	case WRITE:
		n = pwritev2(b->fd, r->data + r->first, (int)(r->pieces - r->first), (off_t)r->offset, write_flags(d));
		break;
	default:
		n = fdatasync(b->fd);
	}
	return n < 0 ? -errno : n > INT32_MAX ? INT32_MAX : (int)n;
}

/* Through memory that direct I/O takes, a part at a time. */
static int do_bounce(struct device *d, struct request *r)
{
	struct block *b = block_of(d);
	const struct iovec *from = r->data + r->first;
	const unsigned int pieces = r->pieces - r->first;
	size_t n = vq_bytes(from, pieces);
	struct iovec all = { b->bounce, n < BOUNCE ? n : BOUNCE };
	ssize_t done;

	if (r->type == READ) {
		done = preadv2(b->fd, &all, 1, (off_t)r->offset, 0);
		if (done > 0)
			vq_write(from, pieces, 0, b->bounce, (size_t)done);
	} else {
		vq_read(from, pieces, 0, b->bounce, all.iov_len);
		done = pwritev2(b->fd, &all, 1, (off_t)r->offset, write_flags(d));
	}
	return done < 0 ? -errno : (int)done;
}

static void submit(struct device *d, struct request *r)
{
	struct block *b = block_of(d);
	struct io_uring_sqe *sqe;

	if (r->type != FLUSH && b->direct && !aligned(r)) {
		answered(d, r, do_bounce(d, r));
		return;
	}
	if (!b->have_ring) {
		answered(d, r, do_io(d, r));
		return;
	}
	while (!(sqe = io_uring_get_sqe(&b->ring)))
		io_uring_submit(&b->ring);
	if (r->type == READ)
		io_uring_prep_readv(sqe, FILE_DISK, r->data + r->first, r->pieces - r->first, r->offset);
	else if (r->type == WRITE)
		io_uring_prep_writev2(sqe, FILE_DISK, r->data + r->first, r->pieces - r->first, r->offset,
				      write_flags(d));
	else
		io_uring_prep_fsync(sqe, FILE_DISK, IORING_FSYNC_DATASYNC);
	io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
	io_uring_sqe_set_data(sqe, r);
}

/* Give back what is done, and tell the kernel what is to be done; wait for `n` answers. Returns whether there was any. */
static bool turn(struct device *d, unsigned int n)
{
	struct block *b = block_of(d);
	struct io_uring_cqe *cqe;
	unsigned int head, answers = 0;

	b->begun = 0;
	if (b->have_ring) {
		io_uring_submit_and_wait(&b->ring, n);
		io_uring_for_each_cqe(&b->ring, head, cqe) {
			struct request *r = io_uring_cqe_get_data(cqe);

			answers++;
			if (r) {
				answered(d, r, cqe->res);
				continue;
			}
			b->rang = true;
			if (!(cqe->flags & IORING_CQE_F_MORE))
				b->polling = false;
		}
		io_uring_cq_advance(&b->ring, answers);
	}
	vq_flush(&d->queue[0]);
	return answers;
}

/* The pieces between byte `skip` and `len` bytes on, as r->data. */
static void data_of(struct request *r, const struct iovec *piece, unsigned int n, size_t skip, size_t len)
{
	r->first = r->pieces = 0;
	for (unsigned int i = 0; i < n && len; i++) {
		size_t bytes = piece[i].iov_len;

		if (skip >= bytes) {
			skip -= bytes;
			continue;
		}
		bytes -= skip;
		if (bytes > len)
			bytes = len;
		r->data[r->pieces++] = (struct iovec){ (uint8_t *)piece[i].iov_base + skip, bytes };
		len -= bytes;
		skip = 0;
	}
}

static void get_id(struct device *d, struct request *r, size_t room)
{
	char id[ID_BYTES] = "";

	snprintf(id, sizeof(id), "keel-disk-%u", d->index);
	r->done = (uint32_t)vq_write(r->c.piece + r->c.out, r->c.in, 0, id, room < sizeof(id) ? room : sizeof(id));
	finish(d, r, STATUS_OK);
}

/* Does [sector, sector + len) lie on the disk, in whole sectors? */
static bool on_disk(const struct block *b, uint64_t sector, size_t len)
{
	return !(len % SECTOR) && len <= b->size && sector <= (b->size - len) / SECTOR;
}

static void begin(struct device *d, struct request *r)
{
	struct block *b = block_of(d);
	struct vq_chain *c = &r->c;
	const size_t out = vq_bytes(c->piece, c->out), in = vq_bytes(c->piece + c->out, c->in);
	struct iovec *last = &c->piece[c->out + c->in - 1];
	struct header h;
	size_t len;

	b->in_flight++;
	r->done = 0;
	r->status = (uint8_t *)last->iov_base + last->iov_len - 1;
	vq_read(c->piece, c->out, 0, &h, sizeof(h));
	r->type = h.type;
	len = h.type == WRITE ? out - sizeof(h) : in - 1;
	if (h.type == FLUSH && KEEL_BUG(65)) {
		finish(d, r, STATUS_OK);
	} else if (h.type == FLUSH) {
		r->offset = 0;
		submit(d, r);
	} else if (h.type == GET_ID) {
		get_id(d, r, in - 1);
	} else if (h.type != READ && h.type != WRITE) {
		finish(d, r, STATUS_UNSUPP);
	} else if ((!on_disk(b, h.sector, len) && !KEEL_BUG(63)) || (h.type == WRITE && b->ro)) {
		finish(d, r, STATUS_IOERR);
	} else {
		r->offset = h.sector * SECTOR;
		b->begun += len;
		if (h.type == WRITE)
			data_of(r, c->piece, c->out, sizeof(h), len);
		else
			data_of(r, c->piece + c->out, c->in, 0, len);
		if (r->pieces)
			submit(d, r);
		else
			finish(d, r, STATUS_OK);
	}
}

/* There is one for each chain that can be in flight, and memory for as many as ever were. */
static struct request *first_free(struct block *b)
{
	if (!b->free && b->used < DEVICE_QUEUE_MAX) {
		b->free = &b->requests[b->used++];
		b->free->next = NULL;
	}
	return b->free;
}

static void block_kick(struct device *d)
{
	struct block *b = block_of(d);
	struct virtqueue *q = &d->queue[0];

	do {
		vq_notify(q, false);
		while (first_free(b) && vq_pop(q, &b->free->c)) {
			struct request *r = b->free;

			if (vq_bytes(r->c.piece, r->c.out) < sizeof(struct header) || !r->c.in) {
				device_broken(d, "chain %u is no request: no header, or no room for a status",
					      r->c.head);
				return;
			}
			b->free = r->next;
			if (b->begun >= BATCH_BYTES)
				turn(d, 0);
			begin(d, r);
			/* Who rings may want a reset, which a driver that keeps supplying does not put off. */
			if (b->rang)
				return;
		}
	} while (vq_notify(q, true));
	vq_flush(q);
}

static void block_start(struct device *d)
{
	struct block *b = block_of(d);

	b->free = NULL;
	b->used = 0;
}

static bool block_quiesce(struct device *d)
{
	return !block_of(d)->in_flight;
}

static void poll_bell(struct block *b)
{
	struct io_uring_sqe *sqe;

	while (!(sqe = io_uring_get_sqe(&b->ring)))
		io_uring_submit(&b->ring);
	io_uring_prep_poll_multishot(sqe, FILE_BELL, POLLIN);
	io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
	io_uring_sqe_set_data(sqe, NULL);
	b->polling = true;
}

/* Something happened: the doorbell, or requests are done, behind which others may wait. */
static bool block_wait(struct device *d, bool block)
{
	struct block *b = block_of(d);
	bool happened;

	if (!b->have_ring)
		return device_poll(d, block);
	if (!b->polling)
		poll_bell(b);
	happened = b->rang;
	happened |= turn(d, block && !happened);
	b->rang = false;
	return happened;
}

static void block_calls(struct device *d, struct seal_calls *c)
{
	struct block *b = block_of(d);
	const struct seal_rule rules[] = {
		{ SCMP_SYS(preadv2), 1, { SEAL_IS(0, b->fd) }, 0 },
		{ SCMP_SYS(pwritev2), 1, { SEAL_IS(0, b->fd) }, 0 },
		{ SCMP_SYS(fdatasync), 1, { SEAL_IS(0, b->fd) }, 0 },
		{ SCMP_SYS(io_uring_enter), 1, { SEAL_IS(0, b->ring.enter_ring_fd) }, 0 },
	};

	_Static_assert(sizeof(rules) <= sizeof(b->rules), "room for the rules");
	memcpy(b->rules, rules, sizeof(rules));
	c->rules = b->rules;
	/* Buffers that direct I/O does not take go the other way even where there is a ring. */
	c->rule_count = sizeof(rules) / sizeof(rules[0]) - !b->have_ring;
}

const struct device_kind device_block = {
	.name = "disk",
	.type = 2,
	.queues = 1,
	.queue_max = DEVICE_QUEUE_MAX, /* a MiB in pages is one request */
	.state = sizeof(struct block),
	.open = block_open,
	.close = block_close,
	.start = block_start,
	.kick = block_kick,
	.quiesce = block_quiesce,
	.wait = block_wait,
	.calls = block_calls,
};
