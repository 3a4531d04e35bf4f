// A disk that stops answering: loaded before the C library (LD_PRELOAD), fdatasync and fsync wait
// as long as the file named by STALL_FILE exists, and then do what they always do.
#include <dlfcn.h>
#include <unistd.h>

#include <cstdlib>

namespace {

int WaitAndCall(const char* name, int fd) {
  const char* const file = std::getenv("STALL_FILE");
  while (file != nullptr && access(file, F_OK) == 0) usleep(1000);
  const auto next = reinterpret_cast<int (*)(int)>(dlsym(RTLD_NEXT, name));
  return next(fd);
}

}  // namespace

extern "C" int fdatasync(int fd) { return WaitAndCall("fdatasync", fd); }
extern "C" int fsync(int fd) { return WaitAndCall("fsync", fd); }
