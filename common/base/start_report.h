/* start_report.h - how a process's start went, on the pipe of the parent that waits for it: one line, said once.
 *
 *   ready p0 admin=127.0.0.1:4711 kv=-
 *   failed cannot bind tcp://127.0.0.1:9090: Address already in use
 */
#ifndef BASE_START_REPORT_H
#define BASE_START_REPORT_H
#include "base/status.h"

#define START_READY  "ready "
#define START_FAILED "failed "

/* Tells the parent behind `fd` why the start failed; false if there is none (-1) or it no longer listens: the reason is
 * then the caller's to log or to print. */
bool start_report_failed(int fd, const char *reason) MUST_CHECK;
#endif
