/* The wall clock that one process is shown: it stands where eight octets of a file say (HELD_CLOCK, µs since 1970), and moves when
 * a test writes there. Preloaded. It must not touch any other clock: timers and timeouts stay the machine's. */

#define _GNU_SOURCE

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* None until the program's own beginning: an allocator may ask for the time before there is an environment. */
static const volatile uint64_t *unix_us;

__attribute__((constructor)) static void begin(void)
{
	const char *path = getenv("HELD_CLOCK");
	int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	void *page = file < 0 ? MAP_FAILED : mmap(NULL, sizeof *unix_us, PROT_READ, MAP_SHARED, file, 0);
	if (page == MAP_FAILED) {
		fprintf(stderr, "no clock in HELD_CLOCK=%s\n", path ? path : "");
		_exit(127);
	}
	close(file);
	unix_us = page;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
	if (!unix_us || (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE))
		return (int)syscall(SYS_clock_gettime, clock, now);
	uint64_t us = *unix_us;
	now->tv_sec = (time_t)(us / 1000000);
	now->tv_nsec = (long)(us % 1000000 * 1000);
	return 0;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
	struct timespec found;
	(void)zone;
	if (clock_gettime(CLOCK_REALTIME, &found) != 0)
		return -1;
	now->tv_sec = found.tv_sec;
	now->tv_usec = found.tv_nsec / 1000;
	return 0;
}

time_t time(time_t *out)
{
	struct timespec found;
	if (clock_gettime(CLOCK_REALTIME, &found) != 0)
		return (time_t)-1;
	if (out)
		*out = found.tv_sec;
	return found.tv_sec;
}
