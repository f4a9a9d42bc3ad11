/* SPDX-License-Identifier: GPL-2.0 */
#ifndef HYPER_TRAPS_H
#define HYPER_TRAPS_H

struct faultinfo;
struct mm_id;
struct uml_pt_regs;

/* Of an address space that is new. */
void hyper_traps_begin(struct mm_id *space);

/* Before a task runs in its space: its floating-point registers are to be there. Negative on failure. */
int hyper_give_fp(struct mm_id *space, struct uml_pt_regs *regs);

/* Before regs->fp is read or written: afterwards it is what counts. Negative on failure. */
int hyper_take_fp(struct mm_id *space, struct uml_pt_regs *regs);

/* Whether `fault` could be filled in for a process that stopped with SIGSEGV; else the process is asked. */
int hyper_is_known(int pid, struct faultinfo *fault);

/* Before a task runs: on the processor where the kernel's thread is. */
void hyper_come_near(struct mm_id *space);

/* Before the kernel's thread sleeps: it may wake up wherever there is room. */
void hyper_let_go(void);

#endif
