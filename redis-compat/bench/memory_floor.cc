// The floor of a recovery on this machine: reads files, computes the CRC32C of each block and
// copies it into memory that was never touched before, on all cores. Nothing that brings data back
// from a log can be faster than this with the same bytes.
//
//   memory_floor THREADS huge|small FILE...      prints seconds and bytes
//
// With `huge` the memory comes in huge pages where the system gives them, with `small` in pages of
// 4 KiB, whose first touch is then the dear part.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <thread>
#include <vector>

#include "utils/crc32c.h"

namespace {

constexpr uint64_t kBlockBytes = 1 << 20;

struct Block {
  int fd;
  uint64_t offset, bytes;
};

}  // namespace

int main(int argc, char** argv) {
  const std::string_view pages = argc > 3 ? argv[2] : "";
  if (pages != "huge" && pages != "small") {
    std::fprintf(stderr, "usage: memory_floor THREADS huge|small FILE...\n");
    return 2;
  }
  std::vector<Block> blocks;
  uint64_t total_bytes = 0;
  for (int i = 3; i < argc; ++i) {
    const int fd = open(argv[i], O_RDONLY | O_CLOEXEC);
    struct stat status {};
    if (fd < 0 || fstat(fd, &status) != 0) {
      std::perror(argv[i]);
      return 1;
    }
    const auto size = static_cast<uint64_t>(status.st_size);
    for (uint64_t offset = 0; offset < size; offset += kBlockBytes) {
      blocks.push_back({fd, offset, std::min(kBlockBytes, size - offset)});
    }
    total_bytes += size;
  }
  const uint64_t fresh_bytes = blocks.size() * kBlockBytes;
  void* const mapped =
      mmap(nullptr, fresh_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) {
    std::perror("mmap");
    return 1;
  }
  madvise(mapped, fresh_bytes, pages == "huge" ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
  char* const fresh = static_cast<char*>(mapped);
  const auto begin = std::chrono::steady_clock::now();
  std::atomic<size_t> next{0};
  std::atomic<uint32_t> sum{0};
  std::vector<std::thread> threads;
  for (int i = std::atoi(argv[1]); i > 0; --i) {
    threads.emplace_back([&] {
      std::vector<char> buffer(kBlockBytes);
      for (size_t at; (at = next.fetch_add(1)) < blocks.size();) {
        const Block& block = blocks[at];
        uint64_t done = 0;
        while (done < block.bytes) {
          const ssize_t got = pread(block.fd, buffer.data() + done, block.bytes - done,
                                    static_cast<off_t>(block.offset + done));
          if (got <= 0) std::abort();
          done += static_cast<uint64_t>(got);
        }
        sum ^= crab::Crc32c(std::string_view(buffer.data(), block.bytes));
        std::memcpy(fresh + at * kBlockBytes, buffer.data(), block.bytes);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  std::printf("%.6f %llu %08x\n", seconds.count(), static_cast<unsigned long long>(total_bytes),
              sum.load());
  return 0;
}
