#include "src/execution/world.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "tests/support/seed.h"
#include "utils/random.h"

namespace crab {
namespace {

using test::Mix;
using test::TestSeed;

TEST(WorldTest, OneLoopNeverWaits) {
  World world(1);
  world.Enter(0);
  world.AcquireExclusive(0);
  world.ReleaseExclusive(0);
  world.Breathe(0);
  world.Exit(0);
}

TEST(WorldTest, ALoopThatIsOutNeedNotBeWoken) {
  World world(3);  // loops 1 and 2 sleep in their polls
  world.Enter(0);
  world.AcquireExclusive(0);
  world.ReleaseExclusive(0);
  world.Exit(0);
}

TEST(WorldTest, AHolderWaitsForGuests) {
  for (int loops : {1, 2}) {
    World world(loops);
    EXPECT_EQ(world.shared(), loops > 1);
    world.OpenToGuests(2);
    EXPECT_TRUE(world.shared());
    std::atomic<int> inside{0}, rounds{0};
    std::atomic<bool> done{false};
    std::vector<std::thread> guests;
    for (int guest = loops; guest < loops + 2; ++guest) {
      guests.emplace_back([&, guest] {
        while (!done) {
          world.Enter(guest);
          ++inside;
          ++rounds;
          --inside;
          world.Exit(guest);
        }
      });
    }
    world.Enter(0);
    for (int i = 0; i < 200 || rounds < 200; ++i) {
      world.AcquireExclusive(0);
      EXPECT_EQ(inside, 0);
      world.ReleaseExclusive(0);
    }
    done = true;
    for (std::thread& guest : guests) guest.join();
    world.CloseToGuests();
    EXPECT_EQ(world.shared(), loops > 1);
    world.AcquireExclusive(0);
    world.ReleaseExclusive(0);
    world.Exit(0);
  }
}

TEST(WorldTest, WhoBreathesBetweenCommandsLetsTheHolderRun) {
  World world(2);
  std::atomic<bool> is_in{false}, done{false};
  std::thread busy([&] {
    world.Enter(1);
    is_in = true;
    while (!done) world.Breathe(1);
    world.Exit(1);
  });
  while (!is_in) std::this_thread::yield();
  world.Enter(0);
  world.AcquireExclusive(0);  // would never return if the other loop did not make way
  world.ReleaseExclusive(0);
  world.Exit(0);
  done = true;
  busy.join();
}

TEST(WorldTest, TheHolderFinishesBeforeOthersEnter) {
  World world(2);
  world.Enter(0);
  world.AcquireExclusive(0);
  std::atomic<bool> tries{false};
  int written_by_holder = 0;
  int seen = 0;
  std::thread other([&] {
    tries = true;
    world.Enter(1);
    seen = written_by_holder;
    world.Exit(1);
  });
  while (!tries) std::this_thread::yield();
  for (int i = 0; i < 1000; ++i) std::this_thread::yield();  // give it every chance to be wrong
  written_by_holder = 42;
  world.ReleaseExclusive(0);
  world.Exit(0);
  other.join();
  EXPECT_EQ(seen, 42);
}

TEST(WorldTest, TwoWhoWantTheWorldDoNotWaitForEachOther) {
  World world(2);
  constexpr int kTimes = 5000;
  int64_t count = 0;  // plain on purpose: the world is its lock
  const auto want = [&](int loop) {
    for (int i = 0; i < kTimes; ++i) {
      world.Enter(loop);
      world.AcquireExclusive(loop);
      ++count;
      world.ReleaseExclusive(loop);
      world.Exit(loop);
    }
  };
  std::thread other(want, 1);
  want(0);
  other.join();
  EXPECT_EQ(count, 2 * kTimes);
}

// Every loop does what it likes in any order; the invariants are checked from inside: a holder sees
// nobody else inside, whoever is inside sees no holder, and what holders write is seen by all.
TEST(WorldTest, AnyMixOfLoopsKeepsTheHolderAlone) {
  constexpr int kLoops = 4;
  constexpr int kSteps = 4000;
  SCOPED_TRACE(testing::Message() << "seed " << TestSeed());
  World world(kLoops);
  std::atomic<int> inside{0};   // loops that read
  std::atomic<int> holders{0};  // loops that hold the world
  std::atomic<int> wrong{0};
  int64_t value = 0;  // changed by holders, read by those inside
  int64_t copy = 0;
  int64_t acquired[kLoops] = {};
  std::vector<std::thread> threads;
  for (int loop = 0; loop < kLoops; ++loop) {
    threads.emplace_back([&, loop] {
      Random random(Mix(TestSeed(), static_cast<uint64_t>(loop)));
      for (int step = 0; step < kSteps; ++step) {
        world.Enter(loop);
        for (uint64_t commands = random.Below(4); commands > 0; --commands) {
          if (random.Below(8) == 0) {
            world.AcquireExclusive(loop);
            if (holders.fetch_add(1) != 0 || inside.load() != 0) ++wrong;
            ++value;
            copy = value;
            ++acquired[loop];
            holders.fetch_sub(1);
            world.ReleaseExclusive(loop);
          } else {
            inside.fetch_add(1);
            if (holders.load() != 0 || value != copy) ++wrong;
            inside.fetch_sub(1);
          }
          world.Breathe(loop);
        }
        world.Exit(loop);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  int64_t sum = 0;
  for (int64_t count : acquired) sum += count;
  EXPECT_EQ(value, sum);
  EXPECT_GT(sum, 0);
}

}  // namespace
}  // namespace crab
