/* A wall clock that is wrong: preloaded into one process, it moves what the system says by CHAOS_CLOCK seconds.
 * Namespaces move only the clocks that count from the machine's start, and Ward's dates are of this one. */
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t which, struct timespec *now) {
    const char *seconds = getenv("CHAOS_CLOCK");
    long failed = syscall(SYS_clock_gettime, which, now);
    if (failed == 0 && which == CLOCK_REALTIME && seconds != NULL) {
        now->tv_sec += atol(seconds);
    }
    return (int)failed;
}
