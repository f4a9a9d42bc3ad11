/* See links.h. */
#include "links.h"

#include <string.h>

/* Where it is known, or would be. */
static size_t place_of(const struct links *links, const struct stat *status)
{
	size_t at = (size_t)(status->st_ino * 2654435761u ^ status->st_dev) % LINKS;

	while (links->known[at].name &&
	       (links->known[at].device != status->st_dev || links->known[at].inode != status->st_ino))
		at = (at + 1) % LINKS;
	return at;
}

const char *links_first_name(struct links *links, const struct stat *status, const char *name)
{
	size_t at;

	if (status->st_nlink < 2 || S_ISDIR(status->st_mode))
		return NULL;
	at = place_of(links, status);
	if (links->known[at].name || links->count == LINKS / 2 || links->memory > LINKS_MEMORY)
		return links->known[at].name;
	links->known[at].device = status->st_dev;
	links->known[at].inode = status->st_ino;
	links->known[at].name = strdup(name);
	links->count += links->known[at].name != NULL;
	links->memory += strlen(name) + 1;
	return NULL;
}
