/* Paths that others made: inside a root they stay inside it, whatever symbolic links say. */
#pragma once

#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Open `path` as a process chrooted to `root` would, but through no magic link of /proc. */
int open_in_root(int root, const char *path, int flags);
/* O_PATH of a directory of our own. */
int open_directory(const char *path);
/* O_PATH of the directory, made with its parents (0755) when absent. */
int make_directory(int root, const char *path);
/* What a mount can be put on: made when absent, as Docker does. */
int make_mount_point(int root, const char *path, bool is_directory);

/* The first line of a small file, without its newline. */
int read_line(const char *path, char *line, size_t size);
int read_line_at(int directory, const char *path, char *line, size_t size);
/* As much of a small file as `size` holds, with a NUL behind it; "" and -errno when it cannot be read. */
int read_text(int directory, const char *path, char *text, size_t size);
/* The whole text of a file that is there: a sysctl, or of a cgroup. */
int write_text(int directory, const char *path, const char *text);
int write_all(int fd, const void *data, size_t size);

/* Remove `name` in `parent` and what is below it; nothing there is no failure. */
int remove_tree(int parent, const char *name);

struct proc_path {
	char text[32];
};
/* A path for calls that take no descriptor: /proc/self/fd/N. */
struct proc_path fd_path(int fd);
