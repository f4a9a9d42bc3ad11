/* See wire.h. */
#include "wire.h"

#include <string.h>

enum { END = 0xC0, ESC = 0xDB, ESC_END = 0xDC, ESC_ESC = 0xDD }; /* RFC 1055 */

/* --- CRC-32, eight bytes at a time (slicing: table[n][b] is b followed by n zero bytes) --- */

static uint32_t crc_table[8][256];

static void crc_fill(void)
{
	for (uint32_t byte = 0; byte < 256; byte++) {
		uint32_t crc = byte;
		for (int bit = 0; bit < 8; bit++)
			crc = (crc >> 1) ^ (crc & 1 ? 0xEDB88320u : 0);
		crc_table[0][byte] = crc;
	}
	for (uint32_t byte = 0; byte < 256; byte++)
		for (int n = 1; n < 8; n++) {
			uint32_t before = crc_table[n - 1][byte];
			crc_table[n][byte] = (before >> 8) ^ crc_table[0][before & 0xFF];
		}
}

static uint32_t little32(const uint8_t *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

uint32_t crc32_update(uint32_t crc, const uint8_t *data, size_t size)
{
	if (!crc_table[0][1])
		crc_fill();
	crc = ~crc;
	for (; size >= 8; data += 8, size -= 8) {
		uint32_t low = crc ^ little32(data), high = little32(data + 4);
		crc = crc_table[7][low & 0xFF] ^ crc_table[6][low >> 8 & 0xFF] ^
		      crc_table[5][low >> 16 & 0xFF] ^ crc_table[4][low >> 24] ^
		      crc_table[3][high & 0xFF] ^ crc_table[2][high >> 8 & 0xFF] ^
		      crc_table[1][high >> 16 & 0xFF] ^ crc_table[0][high >> 24];
	}
	for (; size; data++, size--)
		crc = (crc >> 8) ^ crc_table[0][(crc ^ *data) & 0xFF];
	return ~crc;
}

/* --- Reading fields --- */

static const uint8_t *take(struct reader *r, size_t size)
{
	if (!r->ok || (size_t)(r->end - r->at) < size) {
		r->ok = false;
		return NULL;
	}
	const uint8_t *p = r->at;
	r->at += size;
	return p;
}

void read_later_field(struct reader *r)
{
	r->absent = !r->exact && r->at == r->end;
}

bool read_ends(const struct reader *r)
{
	return r->ok && (r->at == r->end || !r->exact);
}

static uint64_t take_little(struct reader *r, size_t size)
{
	const uint8_t *p = r->absent ? NULL : take(r, size);
	uint64_t value = 0;
	for (size_t i = 0; p && i < size; i++)
		value |= (uint64_t)p[i] << (8 * i);
	return value;
}

static void *arena_take(struct reader *r, size_t size)
{
	struct arena *a = r->arena;
	size_t left = a->size - a->used;
	if (!r->ok || size > left || ((size + 7) & ~(size_t)7) > left) {
		r->ok = false;
		return NULL;
	}
	void *p = memset(a->base + a->used, 0, size);
	a->used += (size + 7) & ~(size_t)7;
	return p;
}

void read_u8(struct reader *r, uint8_t *out)
{
	*out = (uint8_t)take_little(r, 1);
}

void read_u16(struct reader *r, uint16_t *out)
{
	*out = (uint16_t)take_little(r, 2);
}

void read_u32(struct reader *r, uint32_t *out)
{
	*out = (uint32_t)take_little(r, 4);
}

void read_u64(struct reader *r, uint64_t *out)
{
	*out = take_little(r, 8);
}

void read_i32(struct reader *r, int32_t *out)
{
	*out = (int32_t)(uint32_t)take_little(r, 4);
}

void read_bool(struct reader *r, bool *out)
{
	uint64_t value = take_little(r, 1);
	if (value > 1)
		r->ok = false;
	*out = value == 1;
}

void read_bytes(struct reader *r, struct bytes *out)
{
	read_u32(r, &out->size);
	out->data = take(r, out->size);
	if (!out->data)
		out->size = 0;
}

struct reader read_part(struct reader *r)
{
	struct bytes inside;

	read_bytes(r, &inside);
	return (struct reader){ .at = inside.data,
				.end = inside.data ? inside.data + inside.size : NULL,
				.arena = r->arena,
				.ok = r->ok,
				.exact = r->exact };
}

void read_part_end(struct reader *r, const struct reader *part)
{
	r->ok = r->ok && read_ends(part);
}

void read_string(struct reader *r, char **out)
{
	static char empty[1];
	struct bytes raw;

	*out = empty;
	read_bytes(r, &raw);
	if (!r->ok)
		return;
	if (raw.size && memchr(raw.data, 0, raw.size)) { /* a name with a NUL inside would be two names */
		r->ok = false;
		return;
	}
	char *copy = arena_take(r, (size_t)raw.size + 1);
	if (copy)
		*out = memcpy(copy, raw.data, raw.size);
}

void *read_list(struct reader *r, uint32_t *count, size_t item, size_t least)
{
	read_u32(r, count);
	if (*count > (size_t)(r->end - r->at) / least)
		r->ok = false;
	/* no overflow: the count is below FRAME_SIZE here */
	void *list = r->ok ? arena_take(r, ((size_t)*count + 1) * item) : NULL;
	if (!list)
		*count = 0;
	return list;
}

/* --- Writing fields --- */

static void put_stuffed(struct writer *w, uint8_t byte, uint8_t second)
{
	if (w->end - w->at < 2) {
		w->ok = false;
		return;
	}
	*w->at++ = byte;
	*w->at++ = second;
}

static void put_plain(struct writer *w, const uint8_t *data, size_t size)
{
	if ((size_t)(w->end - w->at) < size) {
		w->ok = false;
		return;
	}
	if (size)
		memcpy(w->at, data, size);
	w->at += size;
}

static size_t plain_length(const uint8_t *data, size_t size)
{
	size_t i = 0;
	while (i < size && data[i] != END && data[i] != ESC)
		i++;
	return i;
}

static void put(struct writer *w, const uint8_t *data, size_t size)
{
	if (!w->ok || size > w->raw_limit - w->raw) {
		w->ok = false;
		return;
	}
	w->raw += size;
	if (w->counts)
		return;
	w->crc = crc32_update(w->crc, data, size);
	while (size && w->ok) {
		size_t plain = plain_length(data, size);
		put_plain(w, data, plain);
		data += plain;
		size -= plain;
		if (size && w->ok) {
			put_stuffed(w, ESC, *data == END ? ESC_END : ESC_ESC);
			data++;
			size--;
		}
	}
}

static void put_little(struct writer *w, uint64_t value, size_t size)
{
	uint8_t raw[8];
	for (size_t i = 0; i < size; i++)
		raw[i] = (uint8_t)(value >> (8 * i));
	put(w, raw, size);
}

void write_u8(struct writer *w, uint8_t value)
{
	put_little(w, value, 1);
}

void write_u16(struct writer *w, uint16_t value)
{
	put_little(w, value, 2);
}

void write_u32(struct writer *w, uint32_t value)
{
	put_little(w, value, 4);
}

void write_u64(struct writer *w, uint64_t value)
{
	put_little(w, value, 8);
}

void write_i32(struct writer *w, int32_t value)
{
	put_little(w, (uint32_t)value, 4);
}

void write_bool(struct writer *w, bool value)
{
	put_little(w, value, 1);
}

void write_bytes(struct writer *w, const struct bytes *value)
{
	write_u32(w, value->size);
	put(w, value->data, value->size);
}

void write_string(struct writer *w, const char *value)
{
	size_t size = value ? strlen(value) : 0;
	if (size > UINT32_MAX) {
		w->ok = false;
		return;
	}
	write_u32(w, (uint32_t)size);
	put(w, (const uint8_t *)value, size);
}

struct writer write_count(void)
{
	return (struct writer){ .raw_limit = SIZE_MAX, .counts = true, .ok = true };
}

/* --- Frames --- */

void frame_begin(struct writer *w, void *buffer, size_t size, size_t limit, uint16_t number, uint32_t id)
{
	uint8_t *base = buffer;

	*w = (struct writer){
		.base = base, .at = base, .end = base + size, .raw_limit = limit, .ok = size > 0
	};
	if (w->ok)
		*w->at++ = END; /* ends whatever was left half-written before this frame */
	write_u16(w, number);
	write_u32(w, id);
}

size_t frame_end(struct writer *w)
{
	write_u32(w, w->crc);
	if (!w->ok || w->at == w->end)
		return 0;
	*w->at++ = END;
	return (size_t)(w->at - w->base);
}

void frame_parser_init(struct frame_parser *p, uint8_t *buffer, size_t size)
{
	*p = (struct frame_parser){ .buffer = buffer, .size = size };
}

void frame_parser_reset(struct frame_parser *p)
{
	p->used = 0;
	p->escaped = false;
	p->bad = false;
}

static void keep(struct frame_parser *p, const uint8_t *data, size_t size)
{
	if (p->bad || size > p->size - p->used) {
		p->bad = true;
		return;
	}
	memcpy(p->buffer + p->used, data, size);
	p->used += size;
}

static void unescape(struct frame_parser *p, uint8_t byte)
{
	static const uint8_t end = END, escape = ESC;

	p->escaped = false;
	if (byte == ESC_END)
		keep(p, &end, 1);
	else if (byte == ESC_ESC)
		keep(p, &escape, 1);
	else
		p->bad = true;
}

/* Bytes with no END among them. */
static void unstuff(struct frame_parser *p, const uint8_t *data, const uint8_t *end)
{
	while (data < end && !p->bad) {
		if (p->escaped) {
			unescape(p, *data++);
			continue;
		}
		const uint8_t *escape = memchr(data, ESC, (size_t)(end - data));
		const uint8_t *stop = escape ? escape : end;
		keep(p, data, (size_t)(stop - data));
		p->escaped = escape != NULL;
		data = escape ? escape + 1 : end;
	}
}

static bool finish(struct frame_parser *p, struct frame *frame)
{
	size_t size = p->used;
	bool begun = size || p->escaped || p->bad;
	bool good = !p->bad && !p->escaped && size >= FRAME_HEAD + FRAME_TAIL &&
		    crc32_update(0, p->buffer, size - FRAME_TAIL) == little32(p->buffer + size - FRAME_TAIL);

	frame_parser_reset(p);
	if (!good) {
		p->dropped += begun; /* nothing between two ENDs is no frame */
		return false;
	}
	frame->number = (uint16_t)(p->buffer[0] | p->buffer[1] << 8);
	frame->id = little32(p->buffer + 2);
	frame->body = p->buffer + FRAME_HEAD;
	frame->size = size - FRAME_HEAD - FRAME_TAIL;
	return true;
}

bool frame_parser_next(struct frame_parser *p, const uint8_t **data, const uint8_t *end,
		       struct frame *frame)
{
	while (*data < end) {
		const uint8_t *mark = memchr(*data, END, (size_t)(end - *data));
		unstuff(p, *data, mark ? mark : end);
		*data = mark ? mark + 1 : end;
		if (mark && finish(p, frame))
			return true;
	}
	return false;
}
