/* Writes down what a process does to the files below a directory, and makes some of it fail.
 *
 * Loaded by LD_PRELOAD (tests/it/store/power.rs). DISK_SHIM_DIR: the directory. DISK_SHIM_LOG: where the log goes; a
 * record is an operation, a path, an offset and bytes. DISK_SHIM_FAIL: `OPERATION:COUNT:ERRNO`, from the COUNTth such
 * operation on; an errno of 0 makes a write short.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int counts[128];

#define REAL(name) \
  static __typeof__(&name) real; \
  if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static const char *below(const char *path) {
  const char *dir = getenv("DISK_SHIM_DIR");
  return dir && path && strncmp(path, dir, strlen(dir)) == 0 ? path : NULL;
}

static const char *path_of(int fd, char *buffer) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, buffer, PATH_MAX - 1);
  if (length <= 0) return NULL;
  buffer[length] = 0;
  return below(buffer);
}

static void record(char operation, const char *path, uint64_t offset, const void *bytes, uint64_t length) {
  static ssize_t (*put)(int, const struct iovec *, int);
  static int log = -2;
  if (!put) put = (ssize_t(*)(int, const struct iovec *, int))dlsym(RTLD_NEXT, "writev");
  if (log == -2) {
    const char *name = getenv("DISK_SHIM_LOG");
    int (*opener)(const char *, int, ...) = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open");
    log = name ? opener(name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
  }
  if (log < 0) return;
  uint32_t size = (uint32_t)strlen(path);
  char head[21];
  head[0] = operation;
  memcpy(head + 1, &size, 4);
  memcpy(head + 5, &offset, 8);
  memcpy(head + 13, &length, 8);
  struct iovec parts[3] = {{head, 21}, {(void *)path, size}, {(void *)bytes, bytes ? length : 0}};
  (void)!put(log, parts, 3);
}

/* -1: goes well; otherwise the errno, 0 for a short write. */
static int fails(char operation, const char *path) {
  const char *rule = getenv("DISK_SHIM_FAIL");
  /* What the test itself notes goes well. */
  if (!rule || rule[0] != operation || strstr(path, "/acks")) return -1;
  int count = 0, number = 0;
  if (sscanf(rule + 1, ":%d:%d", &count, &number) != 2) return -1;
  return ++counts[(int)operation] >= count ? number : -1;
}

static ssize_t put(int fd, const void *bytes, size_t length, off_t offset, ssize_t (*real)(int, const void *, size_t, off_t)) {
  char buffer[PATH_MAX];
  const char *path = path_of(fd, buffer);
  if (!path) return real(fd, bytes, length, offset);
  pthread_mutex_lock(&lock);
  int number = fails('w', path);
  ssize_t written;
  if (number > 0) {
    errno = number;
    written = -1;
  } else {
    written = real(fd, bytes, number == 0 && length > 1 ? length / 2 : length, offset);
    if (written > 0) record('w', path, (uint64_t)offset, bytes, (uint64_t)written);
  }
  pthread_mutex_unlock(&lock);
  return written;
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) {
  REAL(pwrite);
  return put(fd, bytes, length, offset, real);
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset) {
  REAL(pwrite64);
  return put(fd, bytes, length, offset, real);
}

ssize_t write(int fd, const void *bytes, size_t length) {
  REAL(write);
  char buffer[PATH_MAX];
  const char *path = fd > 2 ? path_of(fd, buffer) : NULL;
  if (!path) return real(fd, bytes, length);
  pthread_mutex_lock(&lock);
  int number = fails('w', path);
  ssize_t written;
  if (number > 0) {
    errno = number;
    written = -1;
  } else {
    off_t at = fcntl(fd, F_GETFL) & O_APPEND ? lseek(fd, 0, SEEK_END) : lseek(fd, 0, SEEK_CUR);
    written = real(fd, bytes, number == 0 && length > 1 ? length / 2 : length);
    if (written > 0) record('w', path, (uint64_t)at, bytes, (uint64_t)written);
  }
  pthread_mutex_unlock(&lock);
  return written;
}

static int shorten(int fd, off_t length, int (*real)(int, off_t)) {
  char buffer[PATH_MAX];
  const char *path = path_of(fd, buffer);
  if (!path) return real(fd, length);
  pthread_mutex_lock(&lock);
  int result = real(fd, length);
  if (result == 0) record('t', path, (uint64_t)length, NULL, 0);
  pthread_mutex_unlock(&lock);
  return result;
}

int ftruncate(int fd, off_t length) {
  REAL(ftruncate);
  return shorten(fd, length, real);
}

int ftruncate64(int fd, off64_t length) {
  REAL(ftruncate64);
  return shorten(fd, length, real);
}

static int reach(int fd, int (*real)(int)) {
  char buffer[PATH_MAX];
  const char *path = path_of(fd, buffer);
  if (!path) return real(fd);
  pthread_mutex_lock(&lock);
  int number = fails('s', path);
  int result;
  if (number > 0) {
    errno = number;
    result = -1;
  } else {
    result = real(fd);
    if (result == 0) record('s', path, 0, NULL, 0);
  }
  pthread_mutex_unlock(&lock);
  return result;
}

int fsync(int fd) {
  REAL(fsync);
  return reach(fd, real);
}

int fdatasync(int fd) {
  REAL(fdatasync);
  return reach(fd, real);
}

int unlink(const char *path) {
  REAL(unlink);
  pthread_mutex_lock(&lock);
  int result = real(path);
  if (result == 0 && below(path)) record('u', path, 0, NULL, 0);
  pthread_mutex_unlock(&lock);
  return result;
}

int rename(const char *from, const char *to) {
  REAL(rename);
  pthread_mutex_lock(&lock);
  int result = real(from, to);
  if (result == 0 && below(from)) record('r', from, 0, to, strlen(to));
  pthread_mutex_unlock(&lock);
  return result;
}
