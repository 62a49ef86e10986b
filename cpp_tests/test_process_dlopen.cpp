// The library comes and goes by dlopen and dlclose, alone and inside a plug-in, beside another copy of itself or not.
#include "support.h"

#include <dlfcn.h>

#ifndef PROCESS_HOST // nothing of the sort is built for a peer library
#define PROCESS_HOST ""
#define PROCESS_PLUGIN ""
#define PROCESS_LIBRARY ""
#endif

using namespace support;

namespace {

[[maybe_unused]] int run_host(const char *what)
{
    fflush(nullptr);
    const pid_t pid = fork();
    if (pid == 0) {
        execl(PROCESS_HOST, PROCESS_HOST, what, static_cast<char *>(nullptr));
        _exit(127);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

[[maybe_unused]] bool coroutines_work_here()
{
    Pipe pipe_;
    int result = -2;
    Co co([&] { result = poll_one(pipe_.rd, 20000); });
    co.resume();
    pipe_.put();
    return loop_until([&] { return result == 1; });
}

} // namespace

MENDED(ProcessDlopen, TheSharedLibraryIsOpenedAndClosedAHundredTimes)
{
    EXPECT_EQ(run_host(PROCESS_LIBRARY), 0);
}

MENDED(ProcessDlopen, APluginWithTheStaticLibraryIsOpenedAndClosedAHundredTimes)
{
    EXPECT_EQ(run_host(PROCESS_PLUGIN), 0);
}

// Two copies in one process, the program's and the plug-in's: each works, in the same thread, and through a fork.
MENDED(ProcessDlopen, APluginWithItsOwnCopyWorksBesideTheProgramsCopy)
{
    on_thread([] {
        Pipe pipe_;
        int result = -2;
        Co waits([&] { result = poll_one(pipe_.rd, 20000); });
        waits.resume();
        for (int i = 0; i < 20; ++i) {
            void *handle = dlopen(PROCESS_PLUGIN, RTLD_NOW | RTLD_LOCAL);
            ASSERT_NE(handle, nullptr) << dlerror();
            const auto works = reinterpret_cast<int (*)()>(dlsym(handle, "plugin_works"));
            ASSERT_NE(works, nullptr);
            EXPECT_EQ(works(), 3);
            EXPECT_TRUE(coroutines_work_here());
            EXPECT_EQ(in_child([&] { return works() == 3 && coroutines_work_here() ? 0 : 1; }), 0);
            std::thread([&] { EXPECT_EQ(works(), 3); }).join();
            // In a coroutine of the program's, too: to the plug-in it is a thread's main program.
            int within = 0;
            const stCoRoutineAttr_t at = attr(256 * 1024);
            Co co([&] { within = works(); }, &at);
            co.resume();
            EXPECT_TRUE(loop_until([&] { return co.ended(); }));
            EXPECT_EQ(within, 3);
            EXPECT_EQ(dlclose(handle), 0);
        }
        pipe_.put();
        EXPECT_TRUE(loop_until([&] { return result == 1; }));
    });
}
