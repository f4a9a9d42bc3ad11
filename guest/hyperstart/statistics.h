/* What the machine, its disks and NICs, and each container's group have used since they began. */
#pragma once

#include "protocol.gen.h"

/* Fills `statistics`; what it points to is one's to free with statistics_free().  -ENOMEM, or 0. */
int statistics_fill(struct msg_statistics *statistics);
void statistics_free(struct msg_statistics *statistics);
