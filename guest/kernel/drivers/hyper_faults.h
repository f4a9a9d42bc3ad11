/* SPDX-License-Identifier: GPL-2.0 */
#ifndef HYPER_FAULTS_H
#define HYPER_FAULTS_H

struct faultinfo;
struct vm_area_struct;

/* Whether `fault` could be filled in for a page fault of the running task at `address`. */
int hyper_know_fault(unsigned long address, struct faultinfo *fault);

/* After a fault at `address` was handled, with mm's lock held: map what is likely to be written next. */
void hyper_fault_ahead(struct vm_area_struct *area, unsigned long address, int is_write);

#endif
