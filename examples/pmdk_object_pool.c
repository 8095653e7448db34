/* Accounts in a pool of libpmemobj: transactions, and what is left of one that a crash cut short.
 *
 *     plumb run -- pmdk_object_pool POOL [--transfers N] [--crash]
 *
 * Opens POOL, or makes it when it does not exist, and lets libpmemobj undo what was not committed. Then it checks that
 * no money was made or lost and that there is a receipt for every transfer, makes N transfers (default 100), each one
 * transaction, and prints what it has. With --crash the process is killed in the middle of one transfer more: one
 * account is debited, in the file itself, and the other is not credited yet. The next run finds neither.
 *
 * Exit status: 0 if everything is as it should be, 1 if not, 2 for a wrong command line.
 */
#include <inttypes.h>
#include <libpmemobj.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { kAccounts = 64, kFirstBalance = 1000 };

static const char kLayout[] = "plumbfs-example-accounts";

struct receipt {
  PMEMoid next; /* the one before it in time */
  uint32_t from;
  uint32_t to;
  uint64_t amount;
};

struct bank {
  int64_t balances[kAccounts]; /* all 0: not opened yet */
  uint64_t transfers;
  PMEMoid receipts; /* the newest */
};

static int complain(const char* what, const char* why) {
  fprintf(stderr, "pmdk_object_pool: %s: %s\n", what, why);
  return 1;
}

static int64_t total(const struct bank* bank) {
  int64_t sum = 0;
  for (int i = 0; i < kAccounts; ++i) sum += bank->balances[i];
  return sum;
}

/* Everything of it or nothing: the first balances. */
static int open_bank(PMEMobjpool* pool, struct bank* bank) {
  volatile int status = 0;
  TX_BEGIN(pool) {
    pmemobj_tx_add_range_direct(bank->balances, sizeof bank->balances);
    for (int i = 0; i < kAccounts; ++i) bank->balances[i] = kFirstBalance;
  }
  TX_ONABORT {
    status = complain("the first transaction", pmemobj_errormsg());
  }
  TX_END
  return status;
}

static int transfer(PMEMobjpool* pool, struct bank* bank, uint64_t number, bool crashes) {
  const uint32_t from = (uint32_t)(number * 7 % kAccounts);
  const uint32_t to = (uint32_t)((number * 7 + 1 + number % (kAccounts - 1)) % kAccounts);
  const uint64_t amount = 1 + number % 10;
  volatile int status = 0;
  TX_BEGIN(pool) {
    pmemobj_tx_add_range_direct(bank, sizeof *bank);
    const PMEMoid oid = pmemobj_tx_alloc(sizeof(struct receipt), 1);
    struct receipt* receipt = pmemobj_direct(oid);
    receipt->next = bank->receipts;
    receipt->from = from;
    receipt->to = to;
    receipt->amount = amount;
    bank->receipts = oid;
    ++bank->transfers;
    bank->balances[from] -= (int64_t)amount;
    if (crashes) {
      printf("killed in the middle: %" PRId64 " of %d are in the accounts\n", total(bank), kAccounts * kFirstBalance);
      fflush(stdout);
      kill(getpid(), SIGKILL);
      pause();
    }
    bank->balances[to] += (int64_t)amount;
  }
  TX_ONABORT {
    status = complain("a transfer", pmemobj_errormsg());
  }
  TX_END
  return status;
}

/* The balances are what the receipts make of the first ones. */
static int check(const struct bank* bank) {
  int64_t expected[kAccounts];
  for (int i = 0; i < kAccounts; ++i) expected[i] = kFirstBalance;
  uint64_t receipts = 0;
  for (PMEMoid oid = bank->receipts; !OID_IS_NULL(oid); ++receipts) {
    if (receipts == bank->transfers) return complain("check", "more receipts than transfers");
    const struct receipt* receipt = pmemobj_direct(oid);
    if (receipt->from >= kAccounts || receipt->to >= kAccounts) return complain("check", "a receipt is not one");
    expected[receipt->from] -= (int64_t)receipt->amount;
    expected[receipt->to] += (int64_t)receipt->amount;
    oid = receipt->next;
  }
  if (receipts != bank->transfers) return complain("check", "transfers without receipts");
  if (memcmp(expected, bank->balances, sizeof expected) != 0)
    return complain("check", "balances are not what receipts say");
  printf("%" PRIu64 " transfers, %" PRIu64 " receipts, %" PRId64 " in the accounts: as it should be\n", bank->transfers,
         receipts, total(bank));
  return 0;
}

int main(int argc, char** argv) {
  uint64_t transfers = 100;
  bool crashes = false;
  bool is_wrong = argc < 2 || argv[1][0] == '-';
  for (int i = 2; i < argc && !is_wrong; ++i) {
    char* end = NULL;
    if (strcmp(argv[i], "--crash") == 0) {
      crashes = true;
    } else if (strcmp(argv[i], "--transfers") == 0 && i + 1 < argc) {
      transfers = strtoull(argv[++i], &end, 10);
      is_wrong = argv[i][0] < '0' || argv[i][0] > '9' || *end != '\0';
    } else {
      is_wrong = true;
    }
  }
  if (is_wrong) {
    fprintf(stderr, "usage: pmdk_object_pool POOL [--transfers N] [--crash]\n");
    return 2;
  }

  PMEMobjpool* pool = access(argv[1], F_OK) == 0 ? pmemobj_open(argv[1], kLayout)
                                                 : pmemobj_create(argv[1], kLayout, PMEMOBJ_MIN_POOL, 0666);
  if (pool == NULL) return complain(argv[1], pmemobj_errormsg());
  struct bank* bank = pmemobj_direct(pmemobj_root(pool, sizeof(struct bank)));
  int status = bank == NULL ? complain(argv[1], pmemobj_errormsg()) : 0;
  if (status == 0 && total(bank) == 0) status = open_bank(pool, bank);
  if (status == 0) status = check(bank);
  for (uint64_t i = 0; i < transfers && status == 0; ++i) status = transfer(pool, bank, bank->transfers, false);
  if (status == 0 && transfers > 0) status = check(bank);
  if (status == 0 && crashes) status = transfer(pool, bank, bank->transfers, true);
  pmemobj_close(pool);
  return status;
}
