/* Pages after a fork, which parent and child have in common until one of them writes. */
#pragma once

/*
 * Give the caller its own of those that it is about to write to.  A call for all costs as much as one fault
 * for one: under UML that is 40 us or more, and a container's job has twenty of them, hyperstart ten.
 */
void pages_take(void);
/* The program's, which a child has to look up one by one. */
void pages_find(void);
