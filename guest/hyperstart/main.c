/*
 * hyperstart: PID 1 of a machine.
 *
 * Until the channel is up a failure is printed and the machine powers off.  After that nothing may
 * end this process: a request that fails is answered, and the next one is taken.
 */

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cgroup.h"
#include "disk.h"
#include "fd.h"
#include "guest.h"
#include "path.h"
#include "root.h"
#include "template.h"

#define OPEN_FILES 524288
#define TERMINALS "mode=620,ptmxmode=666,gid=5"

struct guest guest = {
	.null = -1,
	.cgroup = -1,
	.channel = { .watch = { .fd = -1 }, .listener = { .fd = -1 } },
	.pod = { .pid_namespace = -1,
		 .net_namespace = -1,
		 .init_pidfd = -1,
		 .net = -1,
		 .services = { .ipvs = -1 },
		 .job = { .watch = { .fd = -1 } } },
};

extern char **environ;

/* --- Boot --- */

/* Over argv, and on into the environment that follows it: what ps(1) shows of us and of the pod's init. */
static void take_name(char **argv)
{
	static const char name[] = "hyperstart";
	char *end = argv[0] + strlen(argv[0]) + 1;

	for (char **at = argv; *at; at++)
		end = *at == end ? end + strlen(end) + 1 : end;
	for (char **at = environ; *at; at++)
		end = *at == end ? end + strlen(end) + 1 : end;
	if ((size_t)(end - argv[0]) >= sizeof(name)) {
		memset(argv[0], 0, (size_t)(end - argv[0]));
		memcpy(argv[0], name, sizeof(name));
	}
	environ = NULL;
	prctl(PR_SET_NAME, name);
}

static int mount_one(const char *fstype, const char *target, unsigned long flags, const char *options)
{
	if (mkdir(target, 0755) && errno != EEXIST)
		return failed("mkdir", target);
	return mount(fstype, target, fstype, flags, options) && errno != EBUSY ? failed("mount", target) : 0;
}

/*
 * pivot_root(2) cannot leave the initial root file system itself, and containers need it: so the same
 * files are mounted once more over it.
 */
static int cover_initial_root(void)
{
	if (mkdir("/run", 0755) && errno != EEXIST)
		return failed("mkdir", "/run");
	if (mount("/", "/run", NULL, MS_BIND, NULL) || chdir("/run") ||
	    mount(".", "/", NULL, MS_MOVE, NULL) || chroot(".") || chdir("/"))
		return failed("cover", "/");
	return 0;
}

static int open_console(void)
{
	int fd;

	while ((fd = open("/dev/console", O_RDWR | O_NOCTTY)) >= 0 && fd <= STDERR_FILENO)
		;
	return fd < 0 ? failed("open", "/dev/console") : close(fd);
}

static int mount_machine(void)
{
	const unsigned long safe = MS_NOSUID | MS_NODEV | MS_NOEXEC;
	int result = cover_initial_root();

	if (!result)
		result = mount_one("devtmpfs", "/dev", MS_NOSUID | MS_NOEXEC, NULL);
	if (!result)
		result = open_console();
	if (!result)
		result = mount_one("proc", "/proc", safe, NULL);
	if (!result)
		result = mount_one("sysfs", "/sys", safe, NULL);
	if (!result)
		result = mount_one("tmpfs", "/run", MS_NOSUID | MS_NODEV, "mode=755");
	return result ? result : mount_one("devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, TERMINALS);
}

/* The driver made the namespaces and mounted what needs the host's. */
static int mount_namespace(void)
{
	char map[64];

	if (chdir("/") || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		return failed("mount private", "/");
	guest.is_mapped = !read_line("/proc/self/uid_map", map, sizeof(map)) && !strstr(map, "4294967295");
	/* those of who runs the test are no groups of ours; a mapped root may have no way to leave them */
	if (syscall(SYS_setgroups, 0, NULL) && !guest.is_mapped)
		return failed("setgroups", "");
	return mount_one("tmpfs", "/run", MS_NOSUID | MS_NODEV, "mode=755");
}

static int make_run_directory(void)
{
	/* mount_plain() would make all but the first, each after a mount that failed: six system calls for one */
	static const char *const names[] = {
		"/run/hyper",
		CGROUP_DIRECTORY,
		SHM_DIRECTORY,
		TERMINALS_DIRECTORY,
		DISKS_DIRECTORY,
		TEMPLATE_DIRECTORY,
		TEMPLATE_DIRECTORY "/proc",
		TEMPLATE_DIRECTORY "/sys",
		TEMPLATE_DIRECTORY "/mqueue",
		ROOT_DIRECTORY,
		DEVICES_DIRECTORY,
		FILES_DIRECTORY,
	};

	for (size_t i = 0; i < LENGTH(names); i++)
		if (mkdir(names[i], 0700) && errno != EEXIST)
			return failed("mkdir", names[i]);
	guest.null = openat(AT_FDCWD, "/dev/null", O_RDWR | O_CLOEXEC);
	guest.own_pid_namespace = openat(AT_FDCWD, "/proc/self/ns/pid", O_RDONLY | O_CLOEXEC);
	guest.own_net_namespace = openat(AT_FDCWD, "/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	if (guest.null < 0 || guest.own_pid_namespace < 0 || guest.own_net_namespace < 0)
		return failed("open", "/dev/null or namespaces");
	return 0;
}

/* Containers may read nothing of us.  When memory runs out, the kernel kills anything but its PID 1. */
static void protect_self(void)
{
	const struct rlimit files = { OPEN_FILES, OPEN_FILES }, processes = { RLIM_INFINITY, RLIM_INFINITY };

	setrlimit(RLIMIT_NOFILE, &files);
	setrlimit(RLIMIT_NPROC, &processes); /* how many, is for containers' cgroups to say */
	if (guest.is_mapped)
		return; /* /proc/self would be closed to ourselves */
	prctl(PR_SET_DUMPABLE, 0);
}

/* --- Signals --- */

static void reap(void)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		if (pid == guest.pod.init)
			pod_init_ended();
		else if (pid == guest.teardown.init)
			guest.teardown.init = 0;
		else if (!processes_ended(pid, status))
			containers_job_ended(pid);
	teardown_look_again();
	containers_look_again();
}

static void signals_ready(struct watch *watch, uint32_t events)
{
	struct signalfd_siginfo signals[8];

	(void)events;
	/* which ones does not matter: children may have ended, and the rest is for nobody */
	while (read(watch->fd, signals, sizeof(signals)) == (ssize_t)sizeof(signals))
		;
	reap();
}

static int open_signals(void)
{
	static struct watch watch = { .ready = signals_ready };
	sigset_t all;

	/* what a test was given to ignore, processes would be too; a kernel gives nothing such to PID 1 */
	for (int number = 1; guest.in_namespaces && number < NSIG; number++)
		signal(number, SIG_DFL);
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	watch.fd = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
	return watch.fd < 0 ? failed("signalfd", "") : watch_set(&watch, EPOLLIN);
}

/* --- */

/* "--channel-fd N": a listening socket, and no machine of our own around. */
static int channel_argument(int argc, char **argv)
{
	if (argc != 3 || strcmp(argv[1], "--channel-fd") != 0)
		return -1;
	return atoi(argv[2]);
}

int main(int argc, char **argv)
{
	int listener = channel_argument(argc, argv);

	if (argc == 2 && !strcmp(argv[1], "--nothing"))
		return 0; /* a process of a rehearsal (engine/rehearsal.py) */
	guest.started_ns = now_ns();
	guest.in_namespaces = listener >= 0;
	mark("start", "");
	take_name(argv);
	umask(0); /* what is made has the permissions that it is made with; processes get their own (exec.c) */
	if (guest.in_namespaces ? mount_namespace() : mount_machine())
		die("mounts");
	if (make_run_directory())
		die("run directory");
	guest.cgroup = cgroup_open();
	protect_self();
	mark("mounts", "");
	if (loop_open() || open_signals())
		die("event loop");
	session_init();
	if (guest.in_namespaces ? channel_listen(listener) : channel_find())
		die("channel");
	mark("channel", "");
	for (bool busy = false;; busy = session_turn())
		loop_turn(busy);
}
