/* A wall clock that is wrong: preloaded into one process, it moves what the system says by as many seconds as stand in the
 * file CHAOS_CLOCK, which may change at any time. Namespaces move only the clocks that count from the machine's start, and
 * Ward's dates are of this one. */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile const int64_t *seconds;

__attribute__((constructor)) static void look(void) {
    const char *name = getenv("CHAOS_CLOCK");
    int file = name == NULL ? -1 : open(name, O_RDONLY | O_CLOEXEC);
    void *page = file < 0 ? MAP_FAILED : mmap(NULL, sizeof *seconds, PROT_READ, MAP_SHARED, file, 0);
    if (page == MAP_FAILED) {
        abort();
    }
    close(file);
    seconds = page;
}

int clock_gettime(clockid_t which, struct timespec *now) {
    long failed = syscall(SYS_clock_gettime, which, now);
    if (failed == 0 && which == CLOCK_REALTIME && seconds != NULL) {
        now->tv_sec += *seconds;
    }
    return (int)failed;
}
