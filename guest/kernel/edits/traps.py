"""Cheaper system calls and page faults in User-Mode Linux (drivers/hyper_traps_user.c)."""

from __future__ import annotations

from pathlib import Path

from guest.kernel.edits.text import append, change

TRAPS = '#include "{up}drivers/hyper/hyper_traps.h"\n'

LEAVE = """\
#define deactivate_mm(task, mm)							\\
	do {									\\
		if ((mm) && (mm)->context.id.fp_owner == &(task)->thread.regs.regs) \\
			(mm)->context.id.fp_owner = NULL;			\\
	} while (0)

"""


def apply(tree: Path) -> None:
    keep_fp_registers(tree / "arch/um", tree / "arch/x86/um")
    let_go_asleep(tree / "arch/um/os-Linux/time.c")
    go_ahead(tree / "drivers/hyper/Makefile", tree / "arch/um/kernel/trap.c")
    make_room(tree / "arch/um/os-Linux/skas")


def keep_fp_registers(um: Path, x86: Path) -> None:
    """Leave a task's floating-point registers where it runs until they are asked for (hyper_traps_user.c).

    Signals, clones, core dumps and debuggers ask for them; and faults, as the host resets them for the
    handler in the stub.  A task that leaves its address space leaves none behind.
    """
    length = "\tint syscall_data_len;\n"
    owner = "\tstruct uml_pt_regs *fp_owner;\n\tint processor;\n"
    change(um / "include/shared/skas/mm_id.h", {length: length + owner})
    generic = "#include <asm-generic/mmu_context.h>\n"
    change(um / "include/asm/mmu_context.h", {generic: LEAVE + generic})
    skas = "#include <skas.h>\n"
    stack = "\tnew_id->stack = stack;\n"
    change(
        um / "kernel/skas/mmu.c",
        {skas: skas + TRAPS.format(up="../../../../"), stack: f"{stack}\thyper_traps_begin(new_id);\n"},
    )
    take = "hyper_take_fp(current_mm_id(), &current_pt_regs()->regs)"
    copy = "\t  \tmemcpy(&p->thread.regs.regs, current_pt_regs(),\n"
    saved = "\tint cpu = current_thread_info()->cpu;\n\n"
    saved += "\treturn save_i387_registers(userspace_pid[cpu], (unsigned long *) fpu) == 0;\n"
    dumped = "\tif (!t->mm || hyper_take_fp(&t->mm->context.id, &t->thread.regs.regs))\n\t\treturn 0;\n"
    dumped += "\tmemcpy(fpu, t->thread.regs.regs.fp, sizeof(*fpu));\n\treturn 1;\n"
    change(
        um / "kernel/process.c",
        {
            skas: skas + TRAPS.format(up="../../../"),
            copy: f"\t\tif ({take})\n\t\t\treturn -EIO;\n{copy}",
            saved: dumped,
        },
    )
    frame = "\terr = copy_to_user(to, &sc, sizeof(struct sigcontext));\n\tif (err)\n\t\treturn 1;\n"
    back = "\terr = copy_from_user(&sc, from, sizeof(sc));\n\tif (err)\n\t\treturn err;\n"
    taken = f"\n\tif ({take})\n\t\treturn 1;\n"
    change(
        x86 / "signal.c",
        {skas: skas + TRAPS.format(up="../../../"), back: back + taken, frame: frame + taken},
    )
    keep_debuggers(x86 / "ptrace_64.c")
    keep_between_traps(um / "os-Linux/skas/process.c")


def keep_debuggers(ptrace: Path) -> None:
    """Show a debugger the registers of the task that it asks for, not those of the process that ran last."""
    declared = "\tint err, n, cpu = ((struct thread_info *) child->stack)->cpu;\n"
    declared += "\tstruct user_i387_struct fpregs;\n\n"
    saved = "\terr = save_i387_registers(userspace_pid[cpu],\n\t\t\t\t  (unsigned long *) &fpregs);\n"
    saved += "\tif (err)\n\t\treturn err;\n\n\tn = copy_to_user(buf, &fpregs, sizeof(fpregs));\n"
    taken = "\tif (!child->mm || hyper_take_fp(&child->mm->context.id, &child->thread.regs.regs))\n"
    taken += "\t\treturn -ESRCH;\n\n"
    read = "\tn = copy_to_user(buf, child->thread.regs.regs.fp, sizeof(*buf));\n"
    set_declared = "\tint n, cpu = ((struct thread_info *) child->stack)->cpu;\n"
    set_declared += (
        "\tstruct user_i387_struct fpregs;\n\n\tn = copy_from_user(&fpregs, buf, sizeof(fpregs));\n"
    )
    written = (
        "\tint n;\n\n" + taken + "\tn = copy_from_user(child->thread.regs.regs.fp, buf, sizeof(*buf));\n"
    )
    restored = "\treturn restore_i387_registers(userspace_pid[cpu],\n"
    restored += "\t\t\t\t      (unsigned long *) &fpregs);\n"
    include = "#include <registers.h>\n"
    change(
        ptrace,
        {
            include: include + TRAPS.format(up="../../../"),
            declared: "\tint n;\n\n" + taken,
            saved: read,
            set_declared: written,
            restored: "\treturn 0;\n",
        },
    )


def keep_between_traps(process: Path) -> None:
    """Give and take floating-point registers only where they change hands.

    And ask a process for what its fault was only where that is not known (hyper_faults.c).
    """
    include = '#include "../internal.h"\n'
    failed = '_fp_registers returned %d\\n",\n\t\t       err);\n\t\tfatal_sigsegv();\n\t}\n'
    fetch = '\terr = get_fp_registers(pid, aux_fp_regs);\n\tif (err < 0) {\n\t\tprintk(UM_KERN_ERR "save'
    restore = '\n\terr = put_fp_registers(pid, aux_fp_regs);\n\tif (err < 0) {\n\t\tprintk(UM_KERN_ERR "put'
    give = "\t\tif (put_fp_registers(pid, regs->fp)) {\n"
    given = "\t\tif (hyper_give_fp(current_mm_id(), regs)) {\n"
    get = "\t\tif (get_fp_registers(pid, regs->fp)) {\n"
    got = "\t\tis_asked = WIFSTOPPED(status) && WSTOPSIG(status) == SIGSEGV &&\n"
    got += "\t\t\t   !hyper_is_known(pid, &regs->faultinfo);\n"
    got += "\t\tif (is_asked && hyper_take_fp(current_mm_id(), regs)) {\n"
    sync = "\t\tcurrent_mm_sync();\n"
    # Nobody reads it: a fault is told by hyper_is_known() or by the handler in the stub.
    read = "\t\t\tcase SIGSEGV:\n\t\t\tcase SIGTRAP:\n"
    declared = "\tint err, status, op, pid = userspace_pid[0];\n"
    ask = "\t\t\t\t\tget_skas_faultinfo(pid,\n"
    change(
        process,
        {
            include: include + TRAPS.format(up="../../../../"),
            fetch + failed: "",
            restore + failed: "",
            sync: f"\t\thyper_come_near(current_mm_id());\n{sync}",
            give: given,
            declared: f"{declared}\tint is_asked;\n",
            get: got,
            read: "\t\t\tcase SIGTRAP:\n",
            ask: f"\t\t\t\t\tif (is_asked)\n\t{ask}",
        },
    )


def let_go_asleep(time: Path) -> None:
    """Let the kernel's thread wake up on any processor (hyper_traps_user.c)."""
    include = "#include <kern_util.h>\n"
    begin = "void os_idle_sleep(void)\n{\n\tstruct itimerspec its;\n\tsigset_t set, old;\n\n"
    change(
        time,
        {include: include + TRAPS.format(up="../../../"), begin: f"{begin}\thyper_let_go();\n"},
    )


def go_ahead(makefile: Path, trap: Path) -> None:
    """Know faults without asking, and map what is likely to be written next (hyper_faults.c).

    It goes into make's list here, as that file itself is an input of every target's kernel.
    """
    append(makefile, "obj-$(CONFIG_HYPER_CHANNEL) += hyper_faults.o\n")
    include = "#include <skas.h>\n"
    done = "\t} while (!pte_present(*pte));\n\terr = 0;\n"
    change(
        trap,
        {
            include: f'{include}#include "../../../drivers/hyper/hyper_faults.h"\n',
            done: f"{done}\thyper_fault_ahead(vma, address, is_write);\n",
        },
    )


def make_room(skas: Path) -> None:
    """Go on where the host maps no more pieces for a process (hyper_faults.c), and without a word."""
    include = '#include "../internal.h"\n'
    flush = "\t\terr = syscall_stub_flush(current_mm_id());\n"
    again = "\t\tif (err == -ENOMEM)\n\t\t\terr = hyper_let_go_of_pages(current_mm_id());\n"
    change(
        skas / "process.c",
        {include: f'{include}#include "../../../../drivers/hyper/hyper_faults.h"\n', flush: flush + again},
    )
    told = "\t\tsyscall_stub_dump_error(mm_idp);\n"
    change(skas / "mem.c", {told: f"\t\tif (proc_data->err != -ENOMEM)\n\t{told}"})
