/* emulated_children.c - a preload: what an emulated program starts is emulated, too.
 * qemu-user hands execve to Linux, which runs the new program on the processor itself; Criterion starts each test so.
 * TEST_EMULATOR is the emulator with its options, words apart by one blank; its name does not begin with BATON_, as
 * `baton serve` takes those from its children. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MAX_WORDS = 256 };

int execve(const char *path, char *const argv[], char *const envp[])
{
    const char *emulator = getenv("TEST_EMULATOR");
    if (!emulator) return (int)syscall(SYS_execve, path, argv, envp);
    char words[1024], *all[MAX_WORDS], *save = NULL;
    size_t n = 0;
    if (strlen(emulator) >= sizeof(words)) return errno = E2BIG, -1;
    memcpy(words, emulator, strlen(emulator) + 1);
    for (char *w = strtok_r(words, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
        if (n + 4 > MAX_WORDS) return errno = E2BIG, -1;
        all[n++] = w;
    }
    all[n++] = (char *)"-0";
    all[n++] = argv[0];
    all[n++] = (char *)path;
    for (char *const *a = argv + 1; argv[0] && *a; a++) {
        if (n + 2 > MAX_WORDS) return errno = E2BIG, -1;
        all[n++] = *a;
    }
    all[n] = NULL;
    return (int)syscall(SYS_execve, all[0], all, envp);
}

/* glibc's own goes past the one above. */
int execv(const char *path, char *const argv[])
{
    return execve(path, argv, environ);
}
