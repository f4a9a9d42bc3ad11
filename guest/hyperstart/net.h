/* The pod's network interfaces, by rtnetlink(7). */
#pragma once

#include "protocol.gen.h"

int net_loopback_up(int socket);
/*
 * Find the interface by its MAC with `own`, move it to the namespace behind the descriptor
 * `namespace`, and set it up there with `pod`.
 */
int net_configure(int own, int pod, int namespace, const struct msg_configure_nic *nic);
/* Move what was configured back, so that the next pod finds it at once. */
int net_return(int pod, int namespace);

/* "a.b.c.d" or IPv6 text to 4 or 16 bytes; the family, or 0 when it is none. */
int net_parse_address(const char *text, uint8_t address[16]);
size_t net_address_size(int family);
