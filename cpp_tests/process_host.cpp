// A program without coroutines that loads what its first argument says, a hundred times: the shared library or a plug-in that
// has the static one. It uses it in threads that live on after it was closed. For test_process_dlopen.cpp.
#include <atomic>
#include <cstdio>
#include <cstring>
#include <thread>
#include <vector>

#include <dlfcn.h>
#include <sys/wait.h>
#include <unistd.h>

namespace {

int ran;

void *count(void *)
{
    ++ran;
    return nullptr;
}

// The library by its C names.
int library_works(void *handle)
{
    using Create = int (*)(void **, const void *, void *(*)(void *), void *);
    using Use = void (*)(void *);
    const Create create = reinterpret_cast<Create>(dlsym(handle, "co_create"));
    const Use resume = reinterpret_cast<Use>(dlsym(handle, "co_resume"));
    const Use release = reinterpret_cast<Use>(dlsym(handle, "co_release"));
    void *co = nullptr;
    if (create == nullptr || resume == nullptr || release == nullptr || create(&co, nullptr, count, nullptr) != 0) {
        return -1;
    }
    const int before = ran;
    resume(co);
    release(co);
    return ran == before + 1 ? 3 : 0;
}

// Loads, uses, closes.
bool once(const char *path)
{
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) {
        fprintf(stderr, "%s\n", dlerror());
        return false;
    }
    const auto works = reinterpret_cast<int (*)()>(dlsym(handle, "plugin_works"));
    const int result = works != nullptr ? works() : library_works(handle);
    return dlclose(handle) == 0 && result == 3;
}

bool child_works(const char *path)
{
    const pid_t pid = fork();
    if (pid == 0) {
        _exit(once(path) ? 0 : 1);
    }
    int status = -1;
    waitpid(pid, &status, 0);
    return status == 0;
}

} // namespace

int main(int count, char **words)
{
    if (count != 2) {
        return 2;
    }
    alarm(100);
    for (int i = 0; i < 100; ++i) {
        if (!once(words[1])) {
            return 3;
        }
    }
    std::atomic<bool> end{false};
    std::atomic<int> good{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
        threads.emplace_back([&] {
            bool all = true;
            ran = 0; // (each uses it alone: one after the other)
            all = once(words[1]);
            good += all;
            while (!end) {
                std::this_thread::yield();
            }
        });
        while (good != i + 1) {
            std::this_thread::yield();
        }
    }
    // Nobody has it open any more; its threads end after that, and their environments with them.
    const bool forks = child_works(words[1]);
    end = true;
    for (std::thread &t : threads) {
        t.join();
    }
    return forks && child_works(words[1]) ? 0 : 4;
}
