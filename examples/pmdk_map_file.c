/* A note in a file that libpmem maps: the least that a program of PMDK does.
 *
 *     plumb run -- pmdk_map_file FILE [TEXT]
 *
 * Prints the note that FILE holds, if any, and replaces it by TEXT. FILE is made when it does not exist. The second
 * line says what libpmem found: with is_pmem 1 a store is durable after pmem_persist(), a flush of cache lines; with
 * is_pmem 0 it takes pmem_msync(), a system call. Without plumb run the file is mapped through the kernel, and is_pmem
 * is 0.
 *
 * The length is what makes the note valid: it is stored last, as one word, after the text is durable.
 */
#include <errno.h>
#include <libpmem.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { kFileBytes = 2 * 1024 * 1024, kTextMax = 4000 };

struct note {
  uint64_t length_bytes; /* 0: no note */
  char text[kTextMax];
};

static int complain(const char* what, const char* why) {
  fprintf(stderr, "pmdk_map_file: %s: %s\n", what, why);
  return 1;
}

static int persist(const void* address, size_t length, int is_pmem) {
  if (!is_pmem) return pmem_msync(address, length);
  pmem_persist(address, length);
  return 0;
}

static int replace(struct note* note, const char* text, int is_pmem) {
  /* First there is no note, then its text, then there is one. */
  note->length_bytes = 0;
  if (persist(&note->length_bytes, sizeof note->length_bytes, is_pmem) != 0) return -1;
  memcpy(note->text, text, strlen(text));
  if (persist(note->text, strlen(text), is_pmem) != 0) return -1;
  note->length_bytes = strlen(text);
  return persist(&note->length_bytes, sizeof note->length_bytes, is_pmem);
}

int main(int argc, char** argv) {
  if (argc != 2 && argc != 3) {
    fprintf(stderr, "usage: pmdk_map_file FILE [TEXT]\n");
    return 2;
  }
  if (argc == 3 && strlen(argv[2]) > kTextMax) return complain(argv[2], "the text is too long");
  size_t mapped = 0;
  int is_pmem = 0;
  struct note* note = pmem_map_file(argv[1], kFileBytes, PMEM_FILE_CREATE, 0666, &mapped, &is_pmem);
  if (note == NULL) return complain(argv[1], pmem_errormsg());

  int status = 0;
  if (note->length_bytes > kTextMax) {
    status = complain(argv[1], "this file holds something else");
  } else {
    if (note->length_bytes != 0) printf("note: %.*s\n", (int)note->length_bytes, note->text);
    printf("is_pmem %d, pmem_is_pmem %d, %zu bytes\n", is_pmem, pmem_is_pmem(note, mapped), mapped);
    if (argc == 3 && replace(note, argv[2], is_pmem) != 0) status = complain(argv[1], strerror(errno));
  }
  if (pmem_unmap(note, mapped) != 0) status = complain(argv[1], strerror(errno));
  return status;
}
