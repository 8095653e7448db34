// The crash explorer against a second statement of the fault model, written the slow and obvious way.

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <random>
#include <set>
#include <thread>
#include <vector>

#include "pmem/crash_device.h"
#include "pmem/crash_explorer.h"

namespace {

using plumb::pmem::CrashDevice;
using plumb::pmem::CrashExplorer;
using plumb::pmem::CrashImage;
using plumb::pmem::DeviceKind;

constexpr std::uint64_t kSize = 16384;
constexpr int kThreads = 2;
using Bytes = std::vector<std::byte>;

// Every unit with the list of all its versions.
class NaiveModel {
 public:
  explicit NaiveModel(DeviceKind kind)
      : is_memory_(kind == DeviceKind::kMemory),
        unit_bytes_(is_memory_ ? 8 : 512),
        now_(kSize),
        units_(kSize / unit_bytes_) {
    for (Unit& unit : units_) unit.versions.push_back({Bytes(unit_bytes_), -1});
  }

  void store(std::uint64_t offset, const Bytes& bytes, bool streaming, int thread) {
    std::copy(bytes.begin(), bytes.end(), now_.begin() + static_cast<std::ptrdiff_t>(offset));
    for (std::uint64_t u = offset / unit_bytes_; u * unit_bytes_ < offset + bytes.size(); ++u) {
      const auto begin = now_.begin() + static_cast<std::ptrdiff_t>(u * unit_bytes_);
      units_[u].versions.push_back(
          {Bytes(begin, begin + static_cast<std::ptrdiff_t>(unit_bytes_)), streaming && is_memory_ ? thread : -1});
      lost_pages_.erase(u * unit_bytes_ / 4096);
    }
  }

  void flush(std::uint64_t offset, std::uint64_t length, int thread, bool fails) {
    const std::uint64_t grain = is_memory_ ? 64 : 4096;
    const std::uint64_t end = (offset + length + grain - 1) / grain * grain;
    for (std::uint64_t at = offset / grain * grain; at < end; at += unit_bytes_) {
      Unit& unit = units_[at / unit_bytes_];
      const std::size_t latest = unit.versions.size() - 1;
      if (is_memory_) {
        if (fails) continue;
        std::size_t seen = latest;
        while (seen > unit.durable && unit.versions[seen].stream_of >= 0 && unit.versions[seen].stream_of != thread)
          --seen;
        unit.captured[thread] = std::max(unit.captured[thread], seen);
      } else if (fails) {
        if (latest > unit.durable) lost_pages_.insert(at / 4096);
      } else if (!lost_pages_.contains(at / 4096)) {
        unit.durable = latest;
      }
    }
  }

  void drain(int thread) {
    if (!is_memory_) return;
    for (Unit& unit : units_) {
      for (std::size_t v = unit.durable; v < unit.versions.size(); ++v) {
        if (unit.versions[v].stream_of == thread) unit.durable = v;
      }
      unit.durable = std::max(unit.durable, unit.captured[thread]);
    }
  }

  [[nodiscard]] std::size_t unit_count() const { return units_.size(); }
  [[nodiscard]] std::uint64_t unit_bytes() const { return unit_bytes_; }
  [[nodiscard]] std::set<Bytes> legal(std::size_t unit) const {
    std::set<Bytes> result;
    for (std::size_t v = units_[unit].durable; v < units_[unit].versions.size(); ++v) {
      result.insert(units_[unit].versions[v].bytes);
    }
    return result;
  }
  [[nodiscard]] Bytes durable() const {
    Bytes result;
    for (const Unit& unit : units_) {
      const Bytes& bytes = unit.versions[unit.durable].bytes;
      result.insert(result.end(), bytes.begin(), bytes.end());
    }
    return result;
  }
  [[nodiscard]] const Bytes& now() const { return now_; }

 private:
  struct Version {
    Bytes bytes;
    int stream_of;  // the thread of a streaming store, else -1
  };
  struct Unit {
    std::vector<Version> versions;
    std::size_t durable = 0;
    std::map<int, std::size_t> captured;
  };

  bool is_memory_;
  std::uint64_t unit_bytes_;
  Bytes now_;
  std::vector<Unit> units_;
  std::set<std::uint64_t> lost_pages_;
};

// A thread that runs one function at a time, while the caller waits.
class Worker {
 public:
  Worker() : thread_([this] { loop(); }) {}
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;
  ~Worker() {
    run({});
    thread_.join();
  }
  void run(std::function<void()> work) {
    std::unique_lock lock(mutex_);
    work_ = std::move(work);
    has_work_ = true;
    changed_.notify_all();
    changed_.wait(lock, [this] { return !has_work_; });
  }

 private:
  void loop() {
    std::unique_lock lock(mutex_);
    for (bool more = true; more;) {
      changed_.wait(lock, [this] { return has_work_; });
      more = static_cast<bool>(work_);
      if (more) work_();
      has_work_ = false;
      changed_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::function<void()> work_;
  bool has_work_ = false;
  std::thread thread_;
};

// One random call, done by the device and the model alike.
void random_step(std::mt19937_64& random, CrashDevice& device, NaiveModel& model, Worker (&workers)[kThreads]) {
  const int thread = static_cast<int>(random() % kThreads);
  // Near each other, so that calls overlap.
  const std::uint64_t offset = random() % 3 == 0 ? random() % (kSize - 1) : random() % 700;
  const std::uint64_t length = std::min<std::uint64_t>(kSize - offset, 1 + random() % (random() % 4 == 0 ? 1200 : 40));
  const std::uint64_t what = random() % 10;
  const bool fails = random() % 8 == 0;
  Bytes bytes(length);
  if (what != 6) std::generate(bytes.begin(), bytes.end(), [&] { return static_cast<std::byte>(random()); });
  workers[thread].run([&] {
    if (what < 4) {
      REQUIRE(device.store(offset, bytes));
      model.store(offset, bytes, false, thread);
    } else if (what < 6) {
      REQUIRE(device.store_nt(offset, bytes));
      model.store(offset, bytes, true, thread);
    } else if (what == 6) {
      REQUIRE(device.zero(offset, length));
      model.store(offset, bytes, true, thread);
    } else if (what < 9) {
      if (fails) device.fail_flush_call(device.flush_calls(), EIO);
      REQUIRE(device.flush(offset, length).has_value() != fails);
      model.flush(offset, length, thread, fails);
    } else {
      if (fails) device.drop_drain_call(device.drain_calls());
      REQUIRE(device.drain());
      if (!fails) model.drain(thread);
    }
  });
}

void check_images(CrashExplorer& explorer, const CrashDevice& device, const NaiveModel& model, std::uint64_t seed) {
  const std::size_t end = device.event_count();
  REQUIRE(explorer.image_at(end, plumb::pmem::nothing_evicted()).read(0, kSize) == model.durable());
  REQUIRE(explorer.image_at(end, plumb::pmem::everything_evicted()).read(0, kSize) == model.now());
  std::vector<std::set<Bytes>> legal;
  std::vector<std::set<Bytes>> seen(model.unit_count());
  for (std::size_t unit = 0; unit < model.unit_count(); ++unit) legal.push_back(model.legal(unit));
  const auto check = [&](const CrashImage& image) {
    const Bytes bytes = image.read(0, kSize);
    for (std::size_t unit = 0; unit < legal.size(); ++unit) {
      const auto begin = bytes.begin() + static_cast<std::ptrdiff_t>(unit * model.unit_bytes());
      const Bytes value(begin, begin + static_cast<std::ptrdiff_t>(model.unit_bytes()));
      if (!legal[unit].contains(value)) {
        INFO("unit " << unit << " of image " << image.description());
        REQUIRE(legal[unit].contains(value));
      }
      seen[unit].insert(value);
    }
    return true;
  };
  explorer.for_each_image(end, {.max_systematic = 30, .random_torn = 60, .seed = seed}, check);
  // Few versions: each of them must have come up.
  for (std::size_t unit = 0; unit < legal.size(); ++unit) {
    if (legal[unit].size() <= 3) REQUIRE(seen[unit] == legal[unit]);
  }
}

}  // namespace

TEST_CASE("crash explorer: images are those that the naive model allows, and all of them", "[pmem][crash]") {
  const DeviceKind kind = GENERATE(DeviceKind::kMemory, DeviceKind::kCached);
  const std::uint64_t seed = std::random_device{}();
  INFO("seed " << seed);
  std::mt19937_64 random(seed);
  for (int round = 0; round < 6; ++round) {
    Worker workers[kThreads];
    CrashDevice device(kSize, {.kind = kind});
    NaiveModel model(kind);
    CrashExplorer explorer(device);
    for (int step = 0; step < 120; ++step) {
      random_step(random, device, model, workers);
      if (step % 15 == 14) check_images(explorer, device, model, random());
    }
  }
}

TEST_CASE("crash explorer: going backwards gives what going forwards gave", "[pmem][crash]") {
  const DeviceKind kind = GENERATE(DeviceKind::kMemory, DeviceKind::kCached);
  const std::uint64_t seed = std::random_device{}();
  INFO("seed " << seed);
  std::mt19937_64 random(seed);
  Worker workers[kThreads];
  CrashDevice device(kSize, {.kind = kind});
  NaiveModel model(kind);
  for (int step = 0; step < 100; ++step) random_step(random, device, model, workers);
  CrashExplorer forwards(device);
  std::vector<Bytes> contents;
  for (std::size_t point = 0; point <= device.event_count(); ++point) {
    contents.push_back(forwards.image_at(point, plumb::pmem::nothing_evicted()).read(0, kSize));
  }
  CrashExplorer backwards(device);
  for (std::size_t point = device.event_count() + 1; point-- > 0;) {
    REQUIRE(backwards.image_at(point, plumb::pmem::nothing_evicted()).read(0, kSize) == contents[point]);
  }
}
