/* The byte stream to hyperd: a virtio port, the channel device of User-Mode Linux, or a socket. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "loop.h"

struct channel {
	struct watch watch; /* what bytes go through; edge-triggered */
	struct watch listener; /* only with a socket */
	bool readable, writable; /* as far as the last event or call told */
	bool has_ended; /* the last read gave 0 */
	bool has_late_ends; /* and that may be of an earlier connection than the bytes before it */
	unsigned int connections; /* that said Hello */
};

int channel_find(void); /* the machine's channel device */
int channel_listen(int listener); /* a socket that was inherited */
void channel_renew(void); /* a Hello was read, and is not answered yet */

/*
 * Bytes read, or 0 when there is nothing now.  Disconnects are no event here: the next Hello is what
 * opens a session, but where an end is sure what is half-written is dropped by session_disconnected().
 */
size_t channel_read(uint8_t *data, size_t size);
/* Bytes written, or 0 when it is full or nobody is there. */
size_t channel_write(const uint8_t *data, size_t size);
