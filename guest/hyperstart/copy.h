/* A tree copied with all that its entries are: owners, permissions, times, attributes, links, devices. */
#pragma once

#include "entry.h"

/*
 * The directory `from` and what is in it as the new directory `name` in `parent`; what is mounted in it
 * is left out by the caller's choice of `from`.  -errno with the failure noted, and a part copied.
 */
int copy_tree(const struct item *from, int parent, const char *name);
