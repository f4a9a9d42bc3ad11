// SPDX-License-Identifier: GPL-2.0
/*
 * Cheaper page faults of the guest's processes.
 *
 * 1. Why a process stopped at an address, only a handler in it can tell: another stop, two switches, and
 *    floating-point registers that have to be saved from it. Most often it can be told from what the guest
 *    has at that address, and when it can, nobody asks.
 *
 * 2. A program that has written one page after another gets the next ones with the one that it asked for: as many
 *    as it has written, AHEAD at most. So half of what it has got is what it has written, and a large
 *    piece of memory takes a sixteenth of the faults.
 *
 * 3. A host maps so many pieces for a process and no more (vm.max_map_count, 65,530), and guests' pages lie all over
 *    their memory. So a process with 256 MB would die. What is mapped is a cache: when there is no room for
 *    another piece, all are let go of, and what is touched then is mapped again.
 */
#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/mmzone.h>
#include <linux/rcupdate.h>
#include <linux/vmstat.h>

#include <os.h>
#include <sysdep/faultinfo.h>

#include "hyper_faults.h"

#define AHEAD 16 /* pages */
#define AGAIN 16 /* pages, one behind the other */

/* The bits of the processor's error code (Intel's manual, volume 3, 4.7), and the number of its page fault. */
#define WAS_PRESENT 1
#define WAS_WRITE 2
#define WAS_USER 4
#define PAGE_FAULT 14

int hyper_let_go_of_pages(struct mm_id *space)
{
	unmap(space, 0, TASK_SIZE);
	return syscall_stub_flush(space);
}

/* Map what was let go of: the page at `address`, and those beside it. */
static void map_again(struct vm_area_struct *area, unsigned long address)
{
	unsigned long begin = max(address & -(AGAIN * PAGE_SIZE), area->vm_start);
	unsigned long end = min((address | (AGAIN * PAGE_SIZE - 1)) + 1, area->vm_end);
	pte_t *entry;

	for (address = begin; address < end; address += PAGE_SIZE) {
		entry = virt_to_pte(area->vm_mm, address);
		if (entry && pte_present(*entry))
			*entry = pte_mknewpage(*entry);
	}
	um_tlb_mark_sync(area->vm_mm, begin, end);
}

/*
 * What is there and may be read can only have been written to. What is not there may be read first: if it
 * was to be written, the next fault says so. Not so where that costs: memory of nobody's yet would first be mapped
 * as zeros, and what is shared might be written by others meanwhile. Negative: the process is to be asked.
 */
static int error_code(struct mm_struct *mm, unsigned long address, bool is_mapped)
{
	struct vm_area_struct *area = vma_lookup(mm, address);
	pte_t *entry = virt_to_pte(mm, address);
	bool is_there = entry && pte_present(*entry);

	if (!area)
		return -1;
	if (is_there && !is_mapped && area->vm_flags & VM_ACCESS_FLAGS) {
		map_again(area, address);
		return area->vm_flags & (VM_READ | VM_EXEC) ? WAS_USER : WAS_USER | WAS_WRITE;
	}
	if (!(area->vm_flags & VM_READ))
		return -1;
	if (is_there && pte_read(*entry) && pte_young(*entry))
		return area->vm_flags & VM_WRITE ? WAS_USER | WAS_WRITE | WAS_PRESENT : -1;
	if (is_there || (area->vm_flags & VM_WRITE && (vma_is_anonymous(area) || area->vm_flags & VM_SHARED)))
		return -1;
	return WAS_USER;
}

int hyper_know_fault(unsigned long address, int is_mapped, struct faultinfo *fault)
{
	struct mm_struct *mm = current->mm;
	int code;

	if (!mmap_read_trylock(mm))
		return 0;
	code = error_code(mm, address, is_mapped);
	mmap_read_unlock(mm);
	if (code < 0)
		return 0;
	*fault = (struct faultinfo){ .error_code = code, .cr2 = address, .trap_no = PAGE_FAULT };
	return 1;
}

/* Nobody else shall be short of memory for what may not be needed. */
static bool has_room(void)
{
	struct zone *zone = &NODE_DATA(0)->node_zones[ZONE_NORMAL];
	bool room = zone_page_state(zone, NR_FREE_PAGES) > high_wmark_pages(zone);
	struct mem_cgroup *group;

	rcu_read_lock();
	for (group = mem_cgroup_from_task(current); room && group; group = parent_mem_cgroup(group))
		room = page_counter_read(&group->memory) + 2 * AHEAD <=
		       min(READ_ONCE(group->memory.max), READ_ONCE(group->memory.high));
	rcu_read_unlock();
	return room;
}

static bool is_written(struct mm_struct *mm, unsigned long address)
{
	pte_t *entry = virt_to_pte(mm, address);

	return entry && pte_present(*entry) && pte_dirty(*entry);
}

static int pages_before(struct vm_area_struct *area, unsigned long address)
{
	int count = 0;

	while (count < AHEAD && address - area->vm_start >= PAGE_SIZE && is_written(area->vm_mm, address - PAGE_SIZE)) {
		address -= PAGE_SIZE;
		count++;
	}
	return count;
}

void hyper_fault_ahead(struct vm_area_struct *area, unsigned long address, int is_write)
{
	pte_t *entry;
	int count;

	if (!is_write || !vma_is_anonymous(area) || area->vm_flags & (VM_GROWSDOWN | VM_SHARED))
		return;
	address &= PAGE_MASK;
	count = pages_before(area, address);
	if (count == 0 || !has_room())
		return;
	while (count-- && (address += PAGE_SIZE) < area->vm_end) {
		entry = virt_to_pte(area->vm_mm, address);
		if (entry && !pte_none(*entry))
			return;
		if (handle_mm_fault(area, address, FAULT_FLAG_WRITE, NULL) & (VM_FAULT_ERROR | VM_FAULT_RETRY))
			return;
	}
}
