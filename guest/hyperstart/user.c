/* See user.h. */
#include "user.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fd.h"
#include "log.h"
#include "path.h"

#define FILE_LIMIT (1 << 20) /* bytes that are looked at */
#define LINE_LIMIT 4096 /* longer ones are skipped, as they are by nobody's passwd(5) */
#define FIELDS 7

struct passwd_line {
	char *name, *home;
	uint32_t uid, gid;
};

struct group_line {
	char *name, *members;
	uint32_t gid;
};

static bool parse_id(const char *text, uint32_t *id)
{
	char *end;

	if (!isdigit((unsigned char)text[0]))
		return false;
	errno = 0;
	unsigned long value = strtoul(text, &end, 10);
	*id = (uint32_t)value;
	return !errno && !*end && value < UINT32_MAX; /* (uid_t)-1 means "no change" to the kernel */
}

/* Read by ourselves: stdio makes as many calls again, and each costs 20 us under UML. */
struct database {
	int fd;
	size_t at, end, total; /* of `text`; bytes read so far */
	char text[LINE_LIMIT + 1];
};

/* Empty when the container has no such regular file. */
static void open_database(struct database *database, int root, const char *path)
{
	cleanup_fd int fd = open_in_root(root, path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
	struct stat status;

	database->at = database->end = database->total = 0;
	database->fd = fd < 0 || fstat(fd, &status) || !S_ISREG(status.st_mode) ? -1 : steal_fd(&fd);
}

/* More behind what is left; false at the end, or when no more is looked at, or the line does not fit. */
static bool fill(struct database *database)
{
	size_t left = database->end - database->at;
	ssize_t count;

	memmove(database->text, database->text + database->at, left);
	database->at = 0;
	database->end = left;
	if (database->fd < 0 || left == LINE_LIMIT || database->total >= FILE_LIMIT)
		return false;
	count = read(database->fd, database->text + left, LINE_LIMIT - left);
	if (count < (ssize_t)(LINE_LIMIT - left)) /* of a regular file, at its end only */
		close_fd(&database->fd);
	if (count <= 0)
		return false;
	database->end += (size_t)count;
	database->total += (size_t)count;
	return true;
}

/* The next line, which the caller may take apart; those that are too long are skipped.  NULL at the end. */
static char *next_line(struct database *database)
{
	bool is_rest = false; /* of a line that was too long */

	for (;;) {
		char *line = database->text + database->at, *newline;
		newline = memchr(line, '\n', database->end - database->at);
		if (!newline && fill(database))
			continue;
		line = database->text + database->at;
		size_t length = newline ? (size_t)(newline - line) : database->end - database->at;
		if (!newline && (!length || database->total >= FILE_LIMIT))
			return NULL;
		line[length] = '\0';
		database->at += length + (newline != NULL);
		if (!is_rest && (newline || length < LINE_LIMIT))
			return line;
		is_rest = !newline;
	}
}

static size_t split_fields(char *line, char *fields[FIELDS])
{
	size_t count = 0;

	while (line && count < FIELDS)
		fields[count++] = strsep(&line, ":");
	return count;
}

static bool parse_passwd(char *line, struct passwd_line *entry)
{
	char *fields[FIELDS];

	if (split_fields(line, fields) < 6)
		return false;
	entry->name = fields[0];
	entry->home = fields[5];
	return parse_id(fields[2], &entry->uid) && parse_id(fields[3], &entry->gid);
}

static bool parse_group(char *line, struct group_line *entry)
{
	char *fields[FIELDS];

	if (split_fields(line, fields) < 4)
		return false;
	entry->name = fields[0];
	entry->members = fields[3];
	return parse_id(fields[2], &entry->gid);
}

static bool lists(char *members, const char *name)
{
	for (char *member; (member = strsep(&members, ","));)
		if (!strcmp(member, name))
			return true;
	return false;
}

/* Fill in uid, gid and home by the first entry with that name or number. */
static bool find_passwd(int root, const char *text, struct user *user, char name[LINE_LIMIT])
{
	struct database database;
	struct passwd_line entry;
	uint32_t id = 0;
	bool is_id = parse_id(text, &id), is_found = false;

	open_database(&database, root, "/etc/passwd");
	for (char *line; !is_found && (line = next_line(&database));) {
		if (!parse_passwd(line, &entry) || (strcmp(entry.name, text) && !(is_id && entry.uid == id)))
			continue;
		is_found = true;
		user->uid = entry.uid;
		user->gid = entry.gid;
		snprintf(user->home, sizeof(user->home), "%s", entry.home[0] ? entry.home : "/");
		snprintf(name, LINE_LIMIT, "%s", entry.name);
	}
	close_fd(&database.fd);
	if (!is_found && is_id)
		user->uid = id;
	return is_found || is_id;
}

bool user_find_gid(int root, const char *name, uint32_t *gid)
{
	struct database database;
	struct group_line entry;
	bool is_found = false;

	open_database(&database, root, "/etc/group");
	for (char *line; !is_found && (line = next_line(&database));) {
		is_found = parse_group(line, &entry) && !strcmp(entry.name, name);
		if (is_found)
			*gid = entry.gid;
	}
	close_fd(&database.fd);
	return is_found;
}

static bool find_group(int root, const char *text, gid_t *gid)
{
	return user_find_gid(root, text, gid) || parse_id(text, gid);
}

bool user_find_uid(int root, const char *name, uint32_t *uid)
{
	struct database database;
	struct passwd_line entry;
	bool is_found = false;

	open_database(&database, root, "/etc/passwd");
	for (char *line; !is_found && (line = next_line(&database));) {
		is_found = parse_passwd(line, &entry) && !strcmp(entry.name, name);
		if (is_found)
			*uid = entry.uid;
	}
	close_fd(&database.fd);
	return is_found;
}

static void add_group(struct user *user, gid_t gid)
{
	if (user->groups_count < USER_GROUPS)
		user->groups[user->groups_count++] = gid;
}

static void add_memberships(int root, const char *name, struct user *user)
{
	struct database database;
	struct group_line entry;

	open_database(&database, root, "/etc/group");
	for (char *line; (line = next_line(&database));)
		if (parse_group(line, &entry) && lists(entry.members, name))
			add_group(user, entry.gid);
	close_fd(&database.fd);
}

static int add_extra(int root, char *const *extra, size_t count, struct user *user)
{
	for (size_t i = 0; i < count; i++) {
		gid_t gid;
		if (!find_group(root, extra[i], &gid))
			return failed_with(ENOENT, "find group", extra[i]);
		add_group(user, gid);
	}
	return 0;
}

int user_find(int root, const char *text, char *const *extra, size_t extra_count, struct user *user)
{
	char wanted[LINE_LIMIT], name[LINE_LIMIT] = "";
	char *group = wanted;

	*user = (struct user){ .home = "/" };
	if (strlen(text) >= sizeof(wanted))
		return failed_with(EINVAL, "find user", "a name that long");
	snprintf(wanted, sizeof(wanted), "%s", text[0] ? text : "0");
	strsep(&group, ":");
	if (!find_passwd(root, wanted[0] ? wanted : "0", user, name))
		return failed_with(ENOENT, "find user", wanted);
	if (group && group[0]) {
		if (!find_group(root, group, &user->gid))
			return failed_with(ENOENT, "find group", group);
	} else if (name[0]) {
		add_memberships(root, name, user);
	}
	return add_extra(root, extra, extra_count, user);
}
