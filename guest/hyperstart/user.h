/* Who a process runs as: names and numbers by the container's own /etc/passwd and /etc/group. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define USER_GROUPS 256
#define USER_HOME 256

struct user {
	uid_t uid;
	gid_t gid;
	size_t groups_count;
	gid_t groups[USER_GROUPS];
	char home[USER_HOME];
};

/*
 * `text` is "", "name", "uid", "name:group" or "uid:gid", with Docker's rules: a number needs no
 * entry, a name does; without a group the user gets those of /etc/group that list it.  `extra` are
 * more groups.  The files are the container's: any bytes, any size.
 */
int user_find(int root, const char *text, char *const *extra, size_t extra_count, struct user *user);

/* The number behind a name; false when the container has no such name. */
bool user_find_uid(int root, const char *name, uint32_t *uid);
bool user_find_gid(int root, const char *name, uint32_t *gid);
