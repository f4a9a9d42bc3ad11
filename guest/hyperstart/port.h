/* The virtio port that is the channel under QEMU, and its driver. */
#pragma once

int port_open(void); /* a descriptor, or -1 while there is none */
/* Start the driver anew, with empty queues; nobody may have the port open.  0, or -errno and it is as it was. */
int port_renew(void);
