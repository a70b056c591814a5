/* coverage_exit.c: in a build for gcov (--enable-coverage), and in no other, this _exit() stands
 * before libc's, so that children that leave without exit() are counted too: the one in which
 * lib/inspect.c walks a map, and those of the process tests. Called by nobody by name.
 */
#include <sys/syscall.h>
#include <unistd.h>

void __gcov_dump(void);

void _exit(int status)
{
    __gcov_dump();
    for (;;) {
        (void)syscall(SYS_exit_group, status);
    }
}
