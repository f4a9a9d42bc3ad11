/* SPDX-License-Identifier: GPL-2.0 */
#ifndef HYPER_FAULTS_H
#define HYPER_FAULTS_H

struct faultinfo;
struct mm_id;
struct vm_area_struct;

/*
 * Whether `fault` could be filled in for a page fault of the running task at `address`, where the host has something
 * mapped or not.
 */
int hyper_know_fault(unsigned long address, int is_mapped, struct faultinfo *fault);

/* Make room where the host maps no more pieces; all comes back as it is touched. Negative on failure. */
int hyper_let_go_of_pages(struct mm_id *space);

/* After a fault at `address` was handled, with mm's lock held: map what is likely to be written next. */
void hyper_fault_ahead(struct vm_area_struct *area, unsigned long address, int is_write);

#endif
