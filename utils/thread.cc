#include "utils/thread.h"

#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <string>

namespace crab {

void SetThreadName(const char* name) {
  char text[16] = {};
  std::strncpy(text, name, sizeof(text) - 1);
  pthread_setname_np(pthread_self(), text);
}

Status PinThread(int core) {
  cpu_set_t usable;
  if (sched_getaffinity(0, sizeof(usable), &usable) == 0) {
    for (int cpu = 0, left = core; cpu < CPU_SETSIZE; ++cpu) {
      if (!CPU_ISSET(cpu, &usable) || left-- > 0) continue;
      cpu_set_t one;
      CPU_ZERO(&one);
      CPU_SET(cpu, &one);
      const int error = pthread_setaffinity_np(pthread_self(), sizeof(one), &one);
      if (error == 0) return Status::Ok();
      return Status::Error("cannot pin a thread to core " + std::to_string(core), error);
    }
  }
  return Status::Error("cannot pin a thread: there is no core " + std::to_string(core));
}

void LowerThreadPriority() { setpriority(PRIO_PROCESS, static_cast<id_t>(gettid()), 10); }

int UsableCores() {
  cpu_set_t usable;
  if (sched_getaffinity(0, sizeof(usable), &usable) != 0) return 1;
  return std::max(1, CPU_COUNT(&usable));
}

}  // namespace crab
