/* The pod's network interfaces, by rtnetlink(7). */
#pragma once

#include "protocol.gen.h"

/* A routing socket of the calling process's network namespace, which it belongs to for good. */
int net_open(void);
int net_loopback_up(int socket);
/*
 * Find the interface by its MAC with `own`, move it to the namespace behind the descriptor
 * `namespace`, and set it up there with `pod`.
 */
int net_configure(int own, int pod, int namespace, const struct msg_configure_nic *nic);
/* Move what was configured back, so that the next pod finds it at once. */
int net_return(int pod, int namespace);
