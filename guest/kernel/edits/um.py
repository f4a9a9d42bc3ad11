"""User-Mode Linux: what crashes it, loses data or slows its start, and what lets a guest out of its share."""

from __future__ import annotations

from pathlib import Path

from guest.kernel.edits.text import EditError, change, removed


def apply(tree: Path) -> None:
    allow_static_link(tree / "arch/um/drivers/Kconfig")
    trust_host(tree / "arch/um/os-Linux/start_up.c")
    name_features(tree / "arch/um/kernel/um_arch.c")
    copy_names(tree / "arch/um/kernel/skas/uaccess.c")
    keep_together(tree / "fs/squashfs/zstd_wrapper.c")
    stop_at_failed_fork(tree / "arch/um/kernel/tlb.c")
    remove_only_disks(tree / "arch/um/drivers/ubd_kern.c")
    flush_disks(tree / "arch/um/drivers/ubd_kern.c")
    read_at_once(tree / "arch/um/drivers/ubd_kern.c")
    give_owners(tree / "fs/hostfs/hostfs_kern.c")
    confine_share(tree / "fs/hostfs/hostfs_kern.c")


def allow_static_link(kconfig: Path) -> None:
    """Let the vector network driver into a static User-Mode Linux.

    Only its transports gre and l2tpv3 look up host names, which a static glibc cannot do everywhere; we use
    taps and sockets.
    """
    start = "config UML_NET_VECTOR\n"
    head, vector, tail = kconfig.read_text().partition(start)
    kconfig.write_text(head + vector + removed(tail, "\tselect MAY_HAVE_RUNTIME_DEPS\n", kconfig))


def trust_host(start_up: Path) -> None:
    """Try no more at each start what every host's ptrace can: two processes that live and die for it.

    A host that forbids ptrace still says so, to the process whose registers are looked at.
    """
    text = start_up.read_text()
    for begin, end in (
        ("static void non_fatal(", "static int start_ptraced_child("),
        ("static void __init check_sysemu(", "static void __init check_coredump_limit("),
    ):
        before, found, rest = text.partition(begin)
        _, next_one, after = rest.partition(end)
        if not found or not next_one:
            raise EditError(f"{start_up}: expected '{begin}' and '{end}' after it")
        text = before + next_one + after
    start_up.write_text(removed(text, "\tcheck_ptrace();\n\n", start_up))


FLAGS = """\
	char *word;
	int i;

	while ((word = strsep(&line, " \\t\\n")))
		for (i = 0; *word && i < 32*NCAPINTS; i++)
			if (x86_cap_flags[i] && *x86_cap_flags[i] == *word && !strcmp(x86_cap_flags[i], word))
				set_cpu_cap(&boot_cpu_data, i);
"""


def name_features(um_arch: Path) -> None:
    """Look for the names of the host's CPU features once, instead of for each name in all of the line.

    That took 0.7 ms of every boot, and found "sse" in "ssse3".
    """
    searched = "\tint i;\n\tfor (i = 0; i < 32*NCAPINTS; i++) {\n"
    searched += "\t\tif ((x86_cap_flags[i] != NULL) && strstr(line, x86_cap_flags[i]))\n"
    searched += "\t\t\tset_cpu_cap(&boot_cpu_data, i);\n\t}\n"
    change(um_arch, {searched: FLAGS})


def copy_names(uaccess: Path) -> None:
    """Copy of a name as much as there is: strncpy() fills up a page behind it, one byte at a time."""
    copied = "\tstrncpy(to, (void *) from, len);\n\tn = strnlen(to, len);\n"
    ended = "\tif (n < len)\n\t        return 1;\n\treturn 0;\n"
    change(
        uaccess,
        {
            copied: "\tn = strnlen((void *) from, len);\n\tmemcpy(to, (void *) from, n);\n",
            ended: "\tif (n == len)\n\t\treturn 0;\n\tto[n] = 0;\n\treturn 1;\n",
        },
    )


def keep_together(zstd: Path) -> None:
    """Take the memory for decompression in one piece when there is one.

    Of what vmalloc() gives, User-Mode Linux asks its host for each page by itself: 152 system calls in the
    mount of each image, a millisecond.
    """
    taken, let_go = "wksp->mem = vmalloc(wksp->mem_size);", "vfree(wksp->mem);"
    text = zstd.read_text()
    text = removed(text, taken, zstd, put="wksp->mem = hyper_take(wksp->mem_size);")
    text = removed(text, let_go, zstd, put="hyper_let_go(wksp->mem, wksp->mem_size);")
    begin = "static void *zstd_init("
    zstd.write_text(removed(text, begin, zstd, put=TOGETHER + begin))


TOGETHER = """\
#ifdef CONFIG_UML
static void *hyper_take(size_t size)
{
	void *together = alloc_pages_exact(size, GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN);

	return together ? together : vmalloc(size);
}

static void hyper_let_go(void *memory, size_t size)
{
	if (is_vmalloc_addr(memory))
		vfree(memory);
	else
		free_pages_exact(memory, size);
}
#else
#define hyper_take(size) vmalloc(size)
#define hyper_let_go(memory, size) vfree(memory)
#endif

"""


def stop_at_failed_fork(tlb: Path) -> None:
    """Keep a fork that fails half-way, for want of memory or by a signal, from crashing User-Mode Linux.

    dup_mmap() marks where it stopped with XA_ZERO_ENTRY; exit_mmap() then flushes, and only um walks the
    areas to do so: it took the mark for one ("Kernel mode fault at addr 0x40e" in flush_tlb_mm).
    """
    loop = "\tfor_each_vma(vmi, vma)\n"
    call = "\t\tum_tlb_mark_sync(mm, vma->vm_start, vma->vm_end);\n"
    careful = f"\tfor_each_vma(vmi, vma) {{\n\t\tif (xa_is_zero(vma))\n\t\t\tbreak;\n{call}\t}}\n"
    tlb.write_text(removed(tlb.read_text(), loop + call, tlb, put=careful))


def remove_only_disks(ubd: Path) -> None:
    """Keep the removal of a disk that could not be opened from crashing the guest; and no default disk."""
    text = ubd.read_text()
    asked = "\tif(ubd_dev->file == NULL)\n\t\tgoto out;\n\n\tif (ubd_dev->disk) {\n"
    careful = "\tif (ubd_dev->disk == NULL)\n\t\tgoto out;\n\n\tif (ubd_dev->disk) {\n"
    text = removed(text, asked, ubd, put=careful)
    before, _, rest = text.partition("static int __init ubd0_init(void)\n")
    default, last, after = rest.partition("__initcall(ubd0_init);\n")
    if not last or "root_fs" not in default:
        raise EditError(f"{ubd}: expected ubd0_init")
    ubd.write_text(before + after)


def flush_disks(ubd: Path) -> None:
    """Ask the host to store what a guest has flushed, which it did not: a flush has no part to be done."""
    parts = "\t\t\tfor (i = 0; !req->error && i < req->desc_cnt; i++)\n"
    flush = "\t\t\tif (req_op(req->req) == REQ_OP_FLUSH)\n\t\t\t\tdo_io(req, NULL);\n"
    ubd.write_text(removed(ubd.read_text(), parts, ubd, put=flush + parts))


READ = """\
static bool ubd_read_cached(struct ubd *dev, struct request *req)
{
	u64 offset = (u64)blk_rq_pos(req) << SECTOR_SHIFT;
	struct hyper_part parts[MAX_SG];
	struct req_iterator iter;
	struct bio_vec bvec;
	int count = 0;

	if (req_op(req) != REQ_OP_READ || dev->cow.file)
		return false;
	rq_for_each_segment(bvec, req, iter) {
		if (count == MAX_SG)
			return false;
		parts[count++] = (struct hyper_part){ bvec_virt(&bvec), bvec.bv_len };
	}
	return hyper_read_cached(dev->fd, parts, count, offset, blk_rq_bytes(req));
}

"""


def read_at_once(ubd: Path) -> None:
    """Read what the host has in memory without its thread (drivers/hyper_disk_user.c)."""
    included = '#include "cow.h"\n'
    queue = "static blk_status_t ubd_queue_rq("
    begin = "\tblk_mq_start_request(req);\n\n"
    at_once = "\tif (ubd_read_cached(ubd_dev, req)) {\n\t\tblk_mq_end_request(req, BLK_STS_OK);\n"
    at_once += "\t\treturn BLK_STS_OK;\n\t}\n\n"
    change(
        ubd,
        {
            included: included + '#include "../../../drivers/hyper/hyper_disk.h"\n',
            queue: READ + queue,
            begin: begin + at_once,
        },
    )


OWN = """\
/* Fails where owners may not be changed: all is one user's then. The mode is last: chown clears bits. */
static void hostfs_own(const char *name, int fd, struct inode *dir, umode_t mode)
{
	bool is_inherited = dir->i_mode & S_ISGID;
	struct hostfs_iattr owner = {
		.ia_valid = HOSTFS_ATTR_UID | HOSTFS_ATTR_GID,
		.ia_uid = from_kuid(&init_user_ns, current_fsuid()),
		.ia_gid = from_kgid(&init_user_ns, is_inherited ? dir->i_gid : current_fsgid()),
	};
	struct hostfs_iattr bits = {
		.ia_valid = HOSTFS_ATTR_MODE,
		.ia_mode = (mode & 07777) | (S_ISDIR(mode) && is_inherited ? S_ISGID : 0),
	};

	set_attr(name, &owner, fd);
	set_attr(name, &bits, fd);
}

"""


def give_owners(hostfs: Path) -> None:
    """Give what a guest makes in its share the owner and mode that it has in the guest.

    Else it would belong to the user of the process, and the mode would be cut by that one's umask.
    """
    text = hostfs.read_text()
    create = "static int hostfs_create("
    text = removed(text, create, hostfs, put=OWN + create)
    failed = "\tif (fd < 0) {\n\t\t__putname(name);\n\t\treturn fd;\n\t}\n"
    text = removed(text, failed, hostfs, put=f"{failed}\thostfs_own(name, fd, dir, mode);\n")
    made = "\terr = do_mkdir(file, mode);\n"
    own = "\tif (!err)\n\t\thostfs_own(file, -1, ino, S_IFDIR | mode);\n"
    text = removed(text, made, hostfs, put=made + own)
    failed = "\tif (err) {\n\t\t__putname(name);\n\t\treturn err;\n\t}\n"
    start, node, rest = text.partition("static int hostfs_mknod(")
    text = start + node + removed(rest, failed, hostfs, put=f"{failed}\thostfs_own(name, -1, dir, mode);\n")
    hostfs.write_text(text)


def confine_share(hostfs: Path) -> None:
    """Keep root of a guest from mounting any directory of the host.

    A mount names a path below the one of the command line, with ".." if it likes, and below "/" when that
    names none. Now each mount is all of the share, and a machine without one has no hostfs.
    """
    text = hostfs.read_text()
    parameter = "\t\tif (!*host_root)\n\t\t\tbreak;\n"
    text = removed(text, parameter, hostfs, put=f"{parameter}\t\treturn -EPERM;\n")
    options = "\tif (host_root == NULL)\n\t\treturn 0;\n"
    refused = "\tif (host_root == NULL || !*host_root)\n\t\treturn 0;\n\treturn -EPERM;\n"
    text = removed(text, options, hostfs, put=refused)
    begin = "\tfsi = kzalloc(sizeof(*fsi), GFP_KERNEL);\n"
    text = removed(text, begin, hostfs, put=f"\tif (!*root_ino)\n\t\treturn -EPERM;\n{begin}")
    hostfs.write_text(text)
