/*
 * Frames and the fields inside them: bounded cursors, CRC-32 and byte stuffing.
 *
 * Knows no message; protocol.gen.[ch] stand on this.  The format is told in docs/protocol.md.
 * Each cursor has one sticky flag: the first short or bad read or write clears `ok`, what follows
 * does nothing and gives zeros, and callers check once, at the end.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FRAME_HEAD 6u /* u16 message number, u32 request id */
#define FRAME_TAIL 4u /* u32 CRC-32 */
/* Room that surely holds a frame of `size` unstuffed bytes: each byte doubled, an END on both sides. */
#define FRAME_STUFFED(size) (2u * (size) + 2u)

/* Memory for what one message points to, 8-aligned; `used = 0` when the message is done with. */
struct arena {
	uint8_t *base;
	size_t size, used;
};

/* Bytes inside the frame that was read, or any bytes to write; never copied. */
struct bytes {
	const uint8_t *data;
	uint32_t size;
};

struct reader {
	const uint8_t *at, *end;
	struct arena *arena;
	bool ok;
	bool exact; /* the peer's version is ours; else fields may be missing at the end, or be too many */
	bool absent; /* from here on fields are missing: they are zero or empty */
};

void read_later_field(struct reader *r); /* before each field that older versions do not have */
bool read_ends(const struct reader *r); /* after the last */
/* The fields of a part, behind its length. */
struct reader read_part(struct reader *r);
void read_part_end(struct reader *r, const struct reader *part);

void read_u8(struct reader *r, uint8_t *out);
void read_u16(struct reader *r, uint16_t *out);
void read_u32(struct reader *r, uint32_t *out);
void read_u64(struct reader *r, uint64_t *out);
void read_i32(struct reader *r, int32_t *out);
void read_bool(struct reader *r, bool *out); /* a byte other than 0 and 1 is bad */
void read_string(struct reader *r, char **out); /* into the arena; a NUL inside is bad; "" when !ok */
void read_bytes(struct reader *r, struct bytes *out); /* points into the frame */
/*
 * An array of `*count` zeroed items of `item` bytes and one zeroed more, so that a list of strings
 * ends with NULL as execve(2) wants.  Each item is at least `least` bytes in the frame, so a count
 * that the rest of the frame cannot hold is bad.  NULL with a count of 0 only when !ok.
 */
void *read_list(struct reader *r, uint32_t *count, size_t item, size_t least);

/* Stuffs, and sums, as it writes: the frame is ready to send when it ends. */
struct writer {
	uint8_t *base, *at, *end;
	size_t raw, raw_limit; /* bytes before stuffing */
	bool counts; /* writes nothing */
	uint32_t crc;
	bool ok;
};

void write_u8(struct writer *w, uint8_t value);
void write_u16(struct writer *w, uint16_t value);
void write_u32(struct writer *w, uint32_t value);
void write_u64(struct writer *w, uint64_t value);
void write_i32(struct writer *w, int32_t value);
void write_bool(struct writer *w, bool value);
void write_string(struct writer *w, const char *value); /* NULL is "" */
void write_bytes(struct writer *w, const struct bytes *value);

/* A writer whose `raw` tells how much it was given: for lengths that stand before. */
struct writer write_count(void);

/* A frame goes into buffer[0..size); `limit` is FRAME_SIZE. */
void frame_begin(struct writer *w, void *buffer, size_t size, size_t limit, uint16_t number, uint32_t id);
/* The bytes to send, or 0 when the frame did not fit the buffer or the limit. */
size_t frame_end(struct writer *w);

struct frame {
	uint16_t number;
	uint32_t id;
	const uint8_t *body; /* good until the parser is fed again */
	size_t size;
};

struct frame_parser {
	uint8_t *buffer;
	size_t size, used;
	bool escaped; /* the last byte was ESC */
	bool bad; /* too long or a wrong escape: drop up to the next END */
	uint64_t dropped; /* frames */
};

/* `buffer` of FRAME_SIZE bytes belongs to the parser from now on. */
void frame_parser_init(struct frame_parser *p, uint8_t *buffer, size_t size);
/* Forget a half-received frame: the connection is a new one. */
void frame_parser_reset(struct frame_parser *p);
/*
 * Take bytes from *data, up to `end`, until one whole frame with a good checksum is there.
 * True: *frame is it, and *data stands behind it; call again for the rest.  False: all was taken.
 */
bool frame_parser_next(struct frame_parser *p, const uint8_t **data, const uint8_t *end,
		       struct frame *frame);

/* CRC-32 of IEEE 802.3, as zlib's crc32(): start with 0. */
uint32_t crc32_update(uint32_t crc, const uint8_t *data, size_t size);
