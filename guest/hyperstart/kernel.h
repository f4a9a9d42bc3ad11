/* System calls that the C library has no wrapper for, and the constants that go with them. */
#pragma once

#include <stdint.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

/* linux/openat2.h */
struct open_how_args {
	uint64_t flags, mode, resolve;
};
#define RESOLVE_NO_MAGICLINKS_ 0x02u
#define RESOLVE_IN_ROOT_ 0x10u

/* linux/mount.h; the mount API of Linux 5.2 works on descriptors, so a path is resolved only once */
#define FSOPEN_CLOEXEC_ 1u
#define FSMOUNT_CLOEXEC_ 1u
#define FSCONFIG_SET_FLAG_ 0u
#define FSCONFIG_SET_STRING_ 1u
#define FSCONFIG_CMD_CREATE_ 6u
#define MOUNT_ATTR_RDONLY_ 0x01u
#define MOUNT_ATTR_NOSUID_ 0x02u
#define MOUNT_ATTR_NODEV_ 0x04u
#define MOUNT_ATTR_NOEXEC_ 0x08u
#define MOUNT_ATTR_NOATIME_ 0x10u
#define MOUNT_ATTR_ATIME_MASK_ 0x70u
#define MOVE_MOUNT_F_EMPTY_PATH_ 0x04u
#define MOVE_MOUNT_T_EMPTY_PATH_ 0x40u
#define OPEN_TREE_CLONE_ 0x01u
#define AT_EMPTY_PATH_ 0x1000u
#define AT_RECURSIVE_ 0x8000u

struct mount_attributes {
	uint64_t set, clear, propagation, userns_fd;
};

/* linux/stat.h */
#define STATX_ATTR_MOUNT_ROOT_ UINT64_C(0x2000)

struct extended_status {
	uint32_t mask, block_size;
	uint64_t attributes, others[30];
};

/* linux/sched.h */
#define CLONE_INTO_CGROUP_ UINT64_C(0x200000000)

struct clone_arguments {
	uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid,
		set_tid_size, cgroup;
};

static inline int sys_openat2(int directory, const char *path, struct open_how_args *how)
{
	return (int)syscall(SYS_openat2, directory, path, how, sizeof(*how));
}

static inline int sys_fsopen(const char *fstype)
{
	return (int)syscall(SYS_fsopen, fstype, FSOPEN_CLOEXEC_);
}

static inline int sys_fsconfig(int fs, unsigned int command, const char *key, const char *value)
{
	return (int)syscall(SYS_fsconfig, fs, command, key, value, 0);
}

static inline int sys_fsmount(int fs, unsigned int attributes)
{
	return (int)syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC_, attributes);
}

/* An empty path is the descriptor's own place. */
static inline int sys_move_mount(int from, const char *from_path, int to, const char *to_path)
{
	return (int)syscall(SYS_move_mount, from, from_path, to, to_path,
			    (*from_path ? 0 : MOVE_MOUNT_F_EMPTY_PATH_) |
				    (*to_path ? 0 : MOVE_MOUNT_T_EMPTY_PATH_));
}

/* A detached copy of the tree at `path` below `fd`, or at `fd` itself; O_CLOEXEC is OPEN_TREE_CLOEXEC. */
static inline int sys_clone_tree(int fd, const char *path, unsigned int flags)
{
	return (int)syscall(SYS_open_tree, fd, path, OPEN_TREE_CLONE_ | AT_EMPTY_PATH_ | 02000000u | flags);
}

static inline int sys_mount_setattr(int fd, unsigned int flags, struct mount_attributes *attributes)
{
	return (int)syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH_ | flags, attributes,
			    sizeof(*attributes));
}

static inline int sys_pivot_root(const char *root, const char *old)
{
	return (int)syscall(SYS_pivot_root, root, old);
}

static inline pid_t sys_clone3(struct clone_arguments *arguments)
{
	return (pid_t)syscall(SYS_clone3, arguments, sizeof(*arguments));
}

static inline int sys_pidfd_open(pid_t pid)
{
	return (int)syscall(SYS_pidfd_open, pid, 0);
}

/* musl has no renameat2(2); 1 is RENAME_NOREPLACE */
static inline int sys_rename_new(int directory, const char *from, const char *to)
{
	return (int)syscall(SYS_renameat2, directory, from, directory, to, 1);
}

/* What is not asked for costs nothing: attributes are always told. */
static inline int sys_statx(int directory, const char *path, struct extended_status *status)
{
	return (int)syscall(SYS_statx, directory, path, 0, 0, status);
}

#define CLOSE_RANGE_CLOEXEC_ 4u

static inline int sys_close_range(unsigned int first, unsigned int flags)
{
	return (int)syscall(SYS_close_range, first, ~0u, flags);
}

static inline int sys_close_between(unsigned int first, unsigned int last)
{
	return (int)syscall(SYS_close_range, first, last, 0);
}
