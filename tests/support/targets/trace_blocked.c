/* A target whose main thread blocks in one system call, and then tells what the call returned.
 *
 *   trace_blocked CALL      "ready NUMBER", then CALL, then "RESULT ERRNO"
 *
 * NUMBER is that of the call. A byte of standard input makes it complete, by way of another
 * thread; a call that comes back on its own before that was interrupted.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/futex.h>
#include <linux/io_uring.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define HOUR 3600

static const char *call;
static int ends[2], pair[2], queue = -1;
static uint32_t word;
static struct sockaddr_un name = {.sun_family = AF_UNIX};
static struct io_uring_params ring;
static int ring_fd;
static char *ring_memory;

static int is(const char *what) { return !strcmp(call, what); }
static int begins(const char *what) { return !strncmp(call, what, strlen(what)); }

static void ready(long number)
{
    printf("ready %lx\n", number);
    fflush(stdout);
}

static void complete(void)
{
    char byte = 0, many[1 << 16];
    uint64_t one = 1;
    if (begins("futex")) {
        word = 1;
        syscall(SYS_futex, &word, FUTEX_WAKE, 1, NULL, NULL, 0);
    } else if (begins("sig")) kill(getpid(), SIGUSR1);
    else if (begins("sem")) {
        struct sembuf up = {0, 1, 0};
        semop(queue, &up, 1);
    } else if (is("msgrcv")) {
        struct { long type; char text[1]; } message = {1, {0}};
        msgsnd(queue, &message, 1, 0);
    } else if (begins("accept")) {
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        connect(fd, (struct sockaddr *)&name, sizeof(sa_family_t) + 1 + strlen(name.sun_path + 1));
    } else if (begins("recv")) (void)!write(pair[1], &byte, 1);
    else if (begins("send")) while (read(pair[1], many, sizeof many) > 0) ;
    else if (is("write")) (void)!read(ends[0], many, sizeof many);
    else if (is("eventfd")) (void)!write(ends[0], &one, 8);
    else if (is("inotify")) close(open("/proc/self/status", O_RDONLY));
    else if (is("flock")) flock(ends[1], LOCK_UN);
    else if (is("io_uring_enter")) {
        uint32_t *tail = (uint32_t *)(ring_memory + ring.sq_off.tail);
        uint32_t *array = (uint32_t *)(ring_memory + ring.sq_off.array);
        array[0] = 0; /* an entry of zeros is a NOP */
        __atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
        syscall(SYS_io_uring_enter, ring_fd, 1, 0, 0, NULL, 0);
    } else (void)!write(ends[1], &byte, 1);
}

static void *wake(void *argument)
{
    char byte;
    if (read(0, &byte, 1) == 1) complete();
    for (;;) pause();
    return argument;
}

static int listening(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    snprintf(name.sun_path + 1, sizeof name.sun_path - 1, "trace_blocked-%d", getpid());
    if (bind(fd, (struct sockaddr *)&name, sizeof(sa_family_t) + 1 + strlen(name.sun_path + 1)))
        exit(3);
    listen(fd, 1);
    return fd;
}

static long perform(void)
{
    struct timeval hour = {HOUR, 0};
    struct timespec hours = {HOUR, 0}, short_time = {0, 400000000};
    struct epoll_event event = {.events = EPOLLIN};
    struct pollfd polled = {ends[0], POLLIN, 0};
    struct sembuf down = {0, -1, 0};
    char buffer[4096] = {0};
    fd_set set;
    sigset_t usr1;
    siginfo_t info;
    sigemptyset(&usr1);
    sigaddset(&usr1, SIGUSR1);
    FD_ZERO(&set);
    FD_SET(ends[0], &set);

    if (begins("epoll")) {
        int fd = epoll_create1(0);
        epoll_ctl(fd, EPOLL_CTL_ADD, ends[0], &event);
#ifdef SYS_epoll_wait
        if (is("epoll_wait")) { ready(SYS_epoll_wait); return syscall(SYS_epoll_wait, fd, &event, 1, -1); }
#endif
        if (is("epoll_pwait2")) {
            ready(SYS_epoll_pwait2);
            return syscall(SYS_epoll_pwait2, fd, &event, 1, NULL, NULL, 8);
        }
        ready(SYS_epoll_pwait);
        return syscall(SYS_epoll_pwait, fd, &event, 1, -1, NULL, 8);
    }
    if (is("sigtimedwait")) { ready(SYS_rt_sigtimedwait); return sigtimedwait(&usr1, &info, &hours); }
    if (is("sigwaitinfo")) { ready(SYS_rt_sigtimedwait); return sigwaitinfo(&usr1, &info); }
    if (is("signalfd")) {
        int fd = signalfd(-1, &usr1, 0);
        ready(SYS_read);
        return read(fd, buffer, sizeof buffer);
    }
    if (begins("sem")) {
        queue = semget(IPC_PRIVATE, 1, 0600);
        long result;
        int timed = is("semtimedop");
        /* The number differs from one C library to the other. */
        ready(timed ? SYS_semtimedop : SYS_semop);
        result = timed ? syscall(SYS_semtimedop, queue, &down, 1, &hours)
                       : syscall(SYS_semop, queue, &down, 1);
        int saved = errno;
        semctl(queue, 0, IPC_RMID);
        errno = saved;
        return result;
    }
    if (is("recv with a timeout")) {
        setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &hour, sizeof hour);
        ready(SYS_recvfrom);
        return recv(pair[0], buffer, 1, 0);
    }
    if (is("recv")) { ready(SYS_recvfrom); return recv(pair[0], buffer, 1, 0); }
    if (begins("send")) {
        while (send(pair[0], buffer, sizeof buffer, MSG_DONTWAIT) > 0) ;
        if (is("send with a timeout"))
            setsockopt(pair[0], SOL_SOCKET, SO_SNDTIMEO, &hour, sizeof hour);
        ready(SYS_sendto);
        return send(pair[0], buffer, 1, 0);
    }
    if (begins("accept")) {
        int fd = listening();
        if (is("accept with a timeout"))
            setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &hour, sizeof hour);
        ready(SYS_accept);
        return accept(fd, NULL, NULL);
    }
    if (is("io_getevents")) {
        aio_context_t context = 0;
        struct io_event done;
        struct iocb block = {.aio_lio_opcode = IOCB_CMD_POLL, .aio_fildes = ends[0], .aio_buf = POLLIN};
        struct iocb *blocks[] = {&block};
        if (syscall(SYS_io_setup, 1, &context) || syscall(SYS_io_submit, context, 1, blocks) != 1)
            exit(4);
        ready(SYS_io_getevents);
        return syscall(SYS_io_getevents, context, 1L, 1L, &done, NULL);
    }
    if (is("io_uring_enter")) {
        ring_fd = syscall(SYS_io_uring_setup, 4, &ring);
        if (ring_fd < 0) exit(5);
        size_t n = ring.sq_off.array + ring.sq_entries * 4;
        ring_memory = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED, ring_fd, IORING_OFF_SQ_RING);
        if (ring_memory == MAP_FAILED) exit(5);
        ready(SYS_io_uring_enter);
        return syscall(SYS_io_uring_enter, ring_fd, 0, 1, IORING_ENTER_GETEVENTS, NULL, 0);
    }

    if (is("read")) { ready(SYS_read); return read(ends[0], buffer, 1); }
    if (is("write")) {
        fcntl(ends[1], F_SETFL, O_NONBLOCK);
        while (write(ends[1], buffer, sizeof buffer) > 0) ;
        fcntl(ends[1], F_SETFL, 0);
        ready(SYS_write);
        return write(ends[1], buffer, 1);
    }
    if (is("eventfd")) {
        ends[0] = eventfd(0, 0);
        ready(SYS_read);
        return read(ends[0], buffer, 8);
    }
    if (is("inotify")) {
        int fd = inotify_init1(0);
        inotify_add_watch(fd, "/proc/self/status", IN_OPEN);
        ready(SYS_read);
        return read(fd, buffer, sizeof buffer);
    }
    if (is("poll")) { ready(SYS_poll); return syscall(SYS_poll, &polled, 1, -1); }
    if (is("poll with a timeout")) {
        ready(SYS_poll);
        return syscall(SYS_poll, &polled, 1, HOUR * 1000);
    }
    if (is("ppoll")) { ready(SYS_ppoll); return ppoll(&polled, 1, &hours, NULL); }
    if (is("select")) { ready(SYS_pselect6); return pselect(ends[0] + 1, &set, NULL, NULL, &hours, NULL); }
    if (is("futex")) { ready(SYS_futex); return syscall(SYS_futex, &word, FUTEX_WAIT, 0, NULL, NULL, 0); }
    if (is("futex with a timeout")) {
        ready(SYS_futex);
        return syscall(SYS_futex, &word, FUTEX_WAIT, 0, &hours, NULL, 0);
    }
    if (is("nanosleep")) {
        struct timespec begin, end;
        clock_gettime(CLOCK_MONOTONIC, &begin);
        ready(SYS_nanosleep);
        long result = syscall(SYS_nanosleep, &short_time, NULL);
        int saved = errno;
        clock_gettime(CLOCK_MONOTONIC, &end);
        errno = saved;
        long ns = (end.tv_sec - begin.tv_sec) * 1000000000L + end.tv_nsec - begin.tv_nsec;
        return result ? result : ns < short_time.tv_nsec ? -2 : 0;
    }
    if (is("wait4") || is("waitid")) {
        pid_t pid = fork();
        if (pid == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            _exit(read(ends[0], buffer, 1) != 1);
        }
        ready(is("wait4") ? SYS_wait4 : SYS_waitid);
        if (is("wait4")) return waitpid(pid, NULL, 0) == pid ? 0 : -1;
        return waitid(P_PID, pid, &info, WEXITED);
    }
    if (is("msgrcv")) {
        queue = msgget(IPC_PRIVATE, 0600);
        ready(SYS_msgrcv);
        long result = msgrcv(queue, buffer, 1, 0, 0);
        int saved = errno;
        msgctl(queue, IPC_RMID, NULL);
        errno = saved;
        return result;
    }
    if (is("flock")) {
        ends[0] = open("/proc/self/exe", O_RDONLY);
        ends[1] = open("/proc/self/exe", O_RDONLY);
        flock(ends[1], LOCK_EX);
        ready(SYS_flock);
        return flock(ends[0], LOCK_EX);
    }
    exit(6);
}

int main(int argc, char **argv)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* none outlives a test that was killed */
    sigset_t blocked;
    pthread_t thread;
    if (argc != 2) return 2;
    call = argv[1];
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR1);
    sigprocmask(SIG_BLOCK, &blocked, NULL);
    if (pipe(ends) || socketpair(AF_UNIX, SOCK_STREAM, 0, pair)) return 3;
    pthread_create(&thread, NULL, wake, NULL);
    errno = 0;
    long result = perform();
    printf("%ld %d\n", result < 0 ? result : 0, result < 0 ? errno : 0);
    fflush(stdout);
    for (;;) pause();
}
