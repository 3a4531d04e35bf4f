#include "utils/thread.h"

#include <gtest/gtest.h>
#include <pthread.h>

#include <thread>

namespace crab {
namespace {

TEST(ThreadTest, CutsALongName) {
  std::thread([] {
    SetThreadName("crab-loop-number-1000");
    char name[32] = {};
    pthread_getname_np(pthread_self(), name, sizeof(name));
    EXPECT_STREQ(name, "crab-loop-numbe");
    SpinPause();
  }).join();
}

TEST(ThreadTest, PinsToACoreThatIsThereAndNamesOneThatIsNot) {
  std::thread([] {
    const int cores = UsableCores();
    ASSERT_GE(cores, 1);
    EXPECT_FALSE(PinThread(cores).ok());
    EXPECT_TRUE(PinThread(cores - 1).ok());
    EXPECT_EQ(UsableCores(), 1);
  }).join();
}

}  // namespace
}  // namespace crab
