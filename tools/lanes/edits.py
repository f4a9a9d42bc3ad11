"""What we change in the source of the lanes' emulator, and why.

Each edit says what it replaces and fails when that is not there, so that no new version loses one silently.
"""

from __future__ import annotations

from pathlib import Path

from guest.kernel.edits.text import change


def apply(tree: Path) -> None:
    """Make all edits in QEMU's freshly unpacked tree."""
    deliver_once(tree / "target/i386/tcg/sysemu/svm_helper.c")
    let_jumps_age(tree / "accel/tcg/tb-jmp-cache.h")
    age_instead_of_empty(tree / "accel/tcg/cputlb.c")
    age_when_code_goes(tree / "accel/tcg/tb-maint.c")
    look_again_at_an_old_one(tree / "accel/tcg/cpu-exec.c")


def deliver_once(helper: Path) -> None:
    """An interrupt that VMRUN injects is delivered there and then, and stayed pending all the same.

    When the time of the CPU's thread ran out before the guest's next exit, the loop that runs the CPU
    (``cpu_handle_exception``) delivered it again, whatever the guest's flags said: a guest took a timer's
    interrupt in that timer's interrupt, and waited for itself for ever.
    """
    delivered = "            do_interrupt_x86_hardirq(env, vector, 1);\n"
    change(helper, {delivered: f"{delivered}            cs->exception_index = -1;\n"})


def let_jumps_age(cache: Path) -> None:
    """Give the table of jumps an age, and each of its entries the age at which it was found right."""
    entry = "    } array[TB_JMP_CACHE_SIZE];\n"
    filled = "                 TranslationBlock *tb, target_ulong pc)\n{\n"
    age = (
        "static inline void tb_jmp_cache_age(CPUJumpCache *jc)\n"
        "{\n"
        "    if (jc) {\n"
        "        jc->age++;\n"
        "    }\n"
        "}\n\n"
    )
    end = "#endif /* ACCEL_TCG_TB_JMP_CACHE_H */"
    change(
        cache,
        {
            entry: f"        uint64_t age;\n{entry}    uint64_t age;\n",
            filled: f"{filled}    jc->array[hash].age = jc->age;\n",
            end: age + end,
        },
    )


def age_instead_of_empty(flush: Path) -> None:
    """Keep the entries when mappings change, as most of them turn out to be right.

    Each change of a page table, and each entry and exit of a nested guest, emptied the table: 70,000 times a
    second in dom0, 64 KiB at a time, and the hash table of all code was asked for each jump afterwards.
    """
    age = "    tb_jmp_cache_age(cpu->tb_jmp_cache);\n"
    empty = "    tcg_flush_jmp_cache(cpu);\n"
    empty_page = (
        "    int i, i0 = tb_jmp_cache_hash_page(page_addr);\n"
        "    CPUJumpCache *jc = cpu->tb_jmp_cache;\n"
        "\n"
        "    for (i = 0; i < TB_JMP_PAGE_SIZE; i++) {\n"
        "        qatomic_set(&jc->array[i0 + i].tb, NULL);\n"
        "    }\n"
    )
    change(flush, {empty: age, empty_page: age})


def age_when_code_goes(invalidate: Path) -> None:
    """The same when code is written to, 5,000 times a second: it is marked then, and found by nobody."""
    empty = "        CPU_FOREACH(cpu) {\n            tcg_flush_jmp_cache(cpu);\n"
    change(
        invalidate, {empty: empty.replace("tcg_flush_jmp_cache(cpu)", "tb_jmp_cache_age(cpu->tb_jmp_cache)")}
    )


def look_again_at_an_old_one(execute: Path) -> None:
    """Take an older entry when the page that its address has now is the one that its code came from."""
    lookup = "/* Might cause an exception, so have a longjmp destination ready */\nstatic inline"
    still = (
        "static bool tb_is_still_there(CPUState *cpu, CPUJumpCache *jc, uint32_t hash,\n"
        "                              const TranslationBlock *tb, target_ulong pc)\n"
        "{\n"
        "    if (likely(jc->array[hash].age == jc->age)) {\n"
        "        return true;\n"
        "    }\n"
        "    if (tb_page_addr0(tb) == -1 || tb_page_addr1(tb) != -1 ||\n"
        "        get_page_addr_code(cpu->env_ptr, pc) != tb_page_addr0(tb)) {\n"
        "        return false;\n"
        "    }\n"
        "    jc->array[hash].age = jc->age;\n"
        "    return true;\n"
        "}\n\n"
    )
    same = "               tb_cflags(tb) == cflags)) {\n        return tb;"
    checked = same.replace(")) {", " &&\n               tb_is_still_there(cpu, jc, hash, tb, pc))) {")
    change(execute, {lookup: still + lookup, same: checked})
