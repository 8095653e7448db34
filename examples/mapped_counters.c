/* Counters that live in a file and survive a power cut, without a system call to count.
 *
 *     mapped_counters FILE NAME...
 *
 * Adds 1 to the counter of each NAME, makes it durable, and prints it. FILE is a table of records that is mapped; it is
 * made when it does not exist. The order of stores is what makes it safe: a record's name is durable before its count
 * says that the record is in use, and a count is one aligned word, so that a crash finds the old one or the new one.
 *
 * On a plumbfs the map is the file's own device pages (the first line says so), and plumbfs_persist() is a flush of cache
 * lines. Elsewhere the same program works with mmap(2) and msync(2).
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <plumbfs.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { kRecords = 512 };

struct record {
  uint64_t count; /* 0: not in use */
  char name[56];  /* ends with a NUL */
};

static int complain(const char* what) {
  fprintf(stderr, "mapped_counters: %s\n", what);
  return 1;
}

/* The record of the name, or a free one that gets it. NULL: the table is full. */
static struct record* find(const plumbfs_mapping* map, struct record* records, const char* name) {
  for (size_t i = 0; i < kRecords; ++i) {
    struct record* record = &records[i];
    if (record->count != 0 && strcmp(record->name, name) == 0) return record;
    if (record->count != 0) continue;
    memset(record->name, 0, sizeof record->name);
    memcpy(record->name, name, strlen(name));
    /* Before the count: a record in use has its name. */
    if (plumbfs_persist(map, record->name, sizeof record->name) != 0) return NULL;
    return record;
  }
  errno = ENOSPC;
  return NULL;
}

static int count(const plumbfs_mapping* map, const char* name) {
  struct record* records = plumbfs_map_address(map);
  if (strlen(name) >= sizeof records[0].name) return complain("a name is too long");
  struct record* record = find(map, records, name);
  if (record == NULL) return complain(errno == ENOSPC ? "the table is full" : plumbfs_error());
  ++record->count;
  if (plumbfs_persist(map, &record->count, sizeof record->count) != 0) return complain(plumbfs_error());
  printf("%s %" PRIu64 "\n", name, record->count);
  return 0;
}

int main(int argc, char** argv) {
  if (argc < 3) {
    fprintf(stderr, "usage: mapped_counters FILE NAME...\n");
    return 2;
  }
  const size_t bytes = kRecords * sizeof(struct record);
  plumbfs_file* file = plumbfs_open(argv[1], O_RDWR | O_CREAT, 0666, 0);
  if (file == NULL) return complain(plumbfs_error());
  /* A map does not make a file longer. */
  const int error = posix_fallocate(plumbfs_fd(file), 0, (off_t)bytes);
  if (error != 0) return complain(strerror(error));
  plumbfs_mapping* map = plumbfs_map(file, 0, bytes, PLUMBFS_MAP_WRITE);
  if (map == NULL) return complain(plumbfs_error());
  if (plumbfs_close(file) != 0) return complain(plumbfs_error()); /* the map stays */
  printf("%s\n", plumbfs_map_is_direct(map) ? "direct" : "by the kernel");

  int status = 0;
  for (int i = 2; i < argc && status == 0; ++i) status = count(map, argv[i]);
  if (plumbfs_unmap(map) != 0) return complain(plumbfs_error());
  return status;
}
