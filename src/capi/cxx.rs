//! The C++-mangled twin of every function that the original exports: one table, one macro.
//!
//! `name(arguments) -> result = "mangled name" => what it calls;`

use core::ffi::{c_char, c_int, c_uint, c_void};

use super::co_comm::{self, clsCoMutex};
use super::co_epoll::{self, co_epoll_res};
use super::co_routine::{self, pfn_co_eventloop_t, pfn_co_log_t, pfn_co_routine_t, stCoRoutineAttr_t};
use super::co_routine_hooks;
use super::co_routine_inner as inner;
use super::coctx::{self, coctx_pfn_t, coctx_t};
use super::log_shim;
use super::{stCoCond_t, stCoEpoll_t, stCoRoutine_t, stCoRoutineEnv_t, stShareStack_t};
use crate::arch;
use crate::sys::caller::Function;

macro_rules! twins {
    ($($name:ident($($arg:ident: $type:ty),*) $(-> $result:ty)? = $mangled:literal => $call:path;)*) => {
        $(
            #[doc = concat!("`", stringify!($name), "` under its C++ name.")]
            ///
            /// # Safety
            /// As the C function's.
            #[unsafe(export_name = $mangled)]
            pub unsafe extern "C-unwind" fn $name($($arg: $type),*) $(-> $result)? {
                // Of one type, whether or not the function is safe to call.
                let twin: unsafe extern "C-unwind" fn($($type),*) $(-> $result)? = $call;
                // SAFETY: the same arguments, under the same conditions.
                unsafe { twin($($arg),*) }
            }
        )*

        /// All of these functions, under both their names.
        pub(crate) static FUNCTIONS: &[Function] = &[$(Function($name as *const ()), Function($call as *const ())),*];
    };
}

twins! {
    co_create(co: *mut *mut stCoRoutine_t, attr: *const stCoRoutineAttr_t, pfn: pfn_co_routine_t, arg: *mut c_void) -> c_int
        = "_Z9co_createPP13stCoRoutine_tPK17stCoRoutineAttr_tPFPvS5_ES5_" => co_routine::co_create;
    co_yield(co: *mut stCoRoutine_t) = "_Z8co_yieldP13stCoRoutine_t" => co_routine::co_yield;
    co_yield_co(co: *mut stCoRoutine_t) = "_Z11co_yield_coP13stCoRoutine_t" => co_routine::co_yield_co;
    co_release(co: *mut stCoRoutine_t) = "_Z10co_releaseP13stCoRoutine_t" => co_routine::co_release;
    co_reset(co: *mut stCoRoutine_t) = "_Z8co_resetP13stCoRoutine_t" => co_routine::co_reset;
    co_self() -> *mut stCoRoutine_t = "_Z7co_selfv" => co_routine::co_self;
    co_poll(ctx: *mut stCoEpoll_t, fds: *mut libc::pollfd, nfds: libc::nfds_t, timeout_ms: c_int) -> c_int
        = "_Z7co_pollP11stCoEpoll_tP6pollfdmi" => co_routine::co_poll;
    co_eventloop(ctx: *mut stCoEpoll_t, pfn: pfn_co_eventloop_t, arg: *mut c_void)
        = "_Z12co_eventloopP11stCoEpoll_tPFiPvES1_" => co_routine::co_eventloop;
    co_setspecific(key: c_uint, value: *const c_void) -> c_int = "_Z14co_setspecificjPKv" => co_routine::co_setspecific;
    co_getspecific(key: c_uint) -> *mut c_void = "_Z14co_getspecificj" => co_routine::co_getspecific;
    co_get_epoll_ct() -> *mut stCoEpoll_t = "_Z15co_get_epoll_ctv" => co_routine::co_get_epoll_ct;
    co_enable_hook_sys() = "_Z18co_enable_hook_sysv" => co_routine::co_enable_hook_sys;
    co_disable_hook_sys() = "_Z19co_disable_hook_sysv" => co_routine::co_disable_hook_sys;
    co_is_enable_sys_hook() -> bool = "_Z21co_is_enable_sys_hookv" => co_routine::co_is_enable_sys_hook;
    co_cond_alloc() -> *mut stCoCond_t = "_Z13co_cond_allocv" => co_routine::co_cond_alloc;
    co_cond_free(cond: *mut stCoCond_t) -> c_int = "_Z12co_cond_freeP10stCoCond_t" => co_routine::co_cond_free;
    co_cond_signal(cond: *mut stCoCond_t) -> c_int = "_Z14co_cond_signalP10stCoCond_t" => co_routine::co_cond_signal;
    co_cond_broadcast(cond: *mut stCoCond_t) -> c_int
        = "_Z17co_cond_broadcastP10stCoCond_t" => co_routine::co_cond_broadcast;
    co_cond_timedwait(cond: *mut stCoCond_t, ms: c_int) -> c_int
        = "_Z17co_cond_timedwaitP10stCoCond_ti" => co_routine::co_cond_timedwait;
    co_cond_wait(cond: *mut stCoCond_t, ms: c_int) -> c_int = "_Z12co_cond_waitP10stCoCond_ti" => co_routine::co_cond_wait;
    co_alloc_sharestack(count: c_int, size: c_int) -> *mut stShareStack_t
        = "_Z19co_alloc_sharestackii" => co_routine::co_alloc_sharestack;
    co_set_env_list(name: *mut *const c_char, cnt: usize) = "_Z15co_set_env_listPPKcm" => co_routine_hooks::co_set_env_list;
    co_accept(fd: c_int, addr: *mut libc::sockaddr, len: *mut libc::socklen_t) -> c_int
        = "_Z9co_acceptiP8sockaddrPj" => co_routine_hooks::co_accept;
    co_set_timeout(fd: c_int, read_ms: c_int, write_ms: c_int) -> c_int
        = "_Z14co_set_timeoutiii" => co_routine_hooks::co_set_timeout;
    co_set_hooks(words: *const c_char) -> c_int = "_Z12co_set_hooksPKc" => co_routine_hooks::co_set_hooks;
    co_set_helper_threads(count: c_int) -> c_int = "_Z21co_set_helper_threadsi" => co_routine_hooks::co_set_helper_threads;
    co_hook_fd(fd: c_int) -> c_int = "_Z10co_hook_fdi" => co_routine_hooks::co_hook_fd;
    co_set_log_handler(handler: pfn_co_log_t) = "_Z18co_set_log_handlerPFvPKcE" => co_routine_hooks::co_set_log_handler;

    co_init_curr_thread_env() = "_Z23co_init_curr_thread_envv" => inner::co_init_curr_thread_env;
    co_get_curr_thread_env() -> *mut stCoRoutineEnv_t = "_Z22co_get_curr_thread_envv" => inner::co_get_curr_thread_env;
    co_free(co: *mut stCoRoutine_t) = "_Z7co_freeP13stCoRoutine_t" => inner::co_free;
    co_yield_env(env: *mut stCoRoutineEnv_t) = "_Z12co_yield_envP16stCoRoutineEnv_t" => inner::co_yield_env;
    alloc_epoll() -> *mut stCoEpoll_t = "_Z10AllocEpollv" => inner::AllocEpoll;
    free_epoll(ctx: *mut stCoEpoll_t) = "_Z9FreeEpollP11stCoEpoll_t" => inner::FreeEpoll;
    get_curr_thread_co() -> *mut stCoRoutine_t = "_Z15GetCurrThreadCov" => inner::GetCurrThreadCo;
    set_epoll(env: *mut stCoRoutineEnv_t, ev: *mut stCoEpoll_t)
        = "_Z8SetEpollP16stCoRoutineEnv_tP11stCoEpoll_t" => inner::SetEpoll;
    get_curr_co(env: *mut stCoRoutineEnv_t) -> *mut stCoRoutine_t
        = "_Z9GetCurrCoP16stCoRoutineEnv_t" => inner::GetCurrCo;
    co_create_env(env: *mut stCoRoutineEnv_t, attr: *const stCoRoutineAttr_t, pfn: pfn_co_routine_t, arg: *mut c_void)
        -> *mut stCoRoutine_t
        = "_Z13co_create_envP16stCoRoutineEnv_tPK17stCoRoutineAttr_tPFPvS4_ES4_" => inner::co_create_env;
    co_poll_inner(ctx: *mut stCoEpoll_t, fds: *mut libc::pollfd, nfds: libc::nfds_t, timeout: c_int,
        pollfunc: Option<unsafe extern "C-unwind" fn(*mut libc::pollfd, libc::nfds_t, c_int) -> c_int>) -> c_int
        = "_Z13co_poll_innerP11stCoEpoll_tP6pollfdmiPFiS2_miE" => inner::co_poll_inner;
    co_swap(curr: *mut stCoRoutine_t, pending: *mut stCoRoutine_t) = "_Z7co_swapP13stCoRoutine_tS0_" => inner::co_swap;
    co_gethostbyname(name: *const c_char) -> *mut libc::hostent = "_Z16co_gethostbynamePKc" => inner::co_gethostbyname;
    co_gethostbyname_r(name: *const c_char, host: *mut libc::hostent, buf: *mut c_char, buflen: usize,
        result: *mut *mut libc::hostent, h_errnop: *mut c_int) -> c_int
        = "_Z18co_gethostbyname_rPKcP7hostentPcmPS2_Pi" => inner::co_gethostbyname_r;

    coctx_init(ctx: *mut coctx_t) -> c_int = "_Z10coctx_initP7coctx_t" => coctx::coctx_init;
    coctx_make(ctx: *mut coctx_t, pfn: coctx_pfn_t, s: *const c_void, s1: *const c_void) -> c_int
        = "_Z10coctx_makeP7coctx_tPFPvS1_S1_EPKvS5_" => coctx::coctx_make;

    co_epoll_wait(epfd: c_int, events: *mut co_epoll_res, max: c_int, timeout: c_int) -> c_int
        = "_Z13co_epoll_waitiP12co_epoll_resii" => co_epoll::co_epoll_wait;
    co_epoll_ctl(epfd: c_int, op: c_int, fd: c_int, event: *mut libc::epoll_event) -> c_int
        = "_Z12co_epoll_ctliiiP11epoll_event" => co_epoll::co_epoll_ctl;
    co_epoll_create(size: c_int) -> c_int = "_Z15co_epoll_createi" => co_epoll::co_epoll_create;
    co_epoll_res_alloc(n: c_int) -> *mut co_epoll_res = "_Z18co_epoll_res_alloci" => co_epoll::co_epoll_res_alloc;
    co_epoll_res_free(room: *mut co_epoll_res) = "_Z17co_epoll_res_freeP12co_epoll_res" => co_epoll::co_epoll_res_free;

    mutex_c1(this: *mut clsCoMutex) = "_ZN10clsCoMutexC1Ev" => co_comm::construct;
    mutex_c2(this: *mut clsCoMutex) = "_ZN10clsCoMutexC2Ev" => co_comm::construct;
    mutex_d1(this: *mut clsCoMutex) = "_ZN10clsCoMutexD1Ev" => co_comm::destroy;
    mutex_d2(this: *mut clsCoMutex) = "_ZN10clsCoMutexD2Ev" => co_comm::destroy;
    mutex_lock(this: *mut clsCoMutex) = "_ZN10clsCoMutex6CoLockEv" => co_comm::lock;
    mutex_unlock(this: *mut clsCoMutex) = "_ZN10clsCoMutex8CoUnLockEv" => co_comm::unlock;
}

/// `co_resume` under its C++ name: the function itself once more, since a jump to it would cost a tenth of a
/// switch.
///
/// # Safety
/// As the C function's.
#[unsafe(naked)]
#[unsafe(export_name = "_Z9co_resumeP13stCoRoutine_t")]
pub unsafe extern "C-unwind" fn co_resume_twin(co: *mut stCoRoutine_t) {
    arch::resume_body!()
}

/// `co_yield_ct` under its C++ name, as [`co_resume_twin`].
#[unsafe(naked)]
#[unsafe(export_name = "_Z11co_yield_ctv")]
pub extern "C-unwind" fn co_yield_ct_twin() {
    arch::yield_body!()
}

/// Logs a message, formatted as by printf; see co_set_log_handler. A variadic function cannot be written
/// in Rust: this jumps to one written in C, with all argument registers as they are.
///
/// # Safety
/// As printf.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn co_log_err() {
    arch::other_name!(log_shim::colib_log_format)
}

/// `co_log_err` under its C++ name.
///
/// # Safety
/// As printf.
#[unsafe(naked)]
#[unsafe(export_name = "_Z10co_log_errPKcz")]
pub unsafe extern "C-unwind" fn co_log_err_twin() {
    arch::other_name!(log_shim::colib_log_format)
}

/// The raw switch: saves the caller into from, goes on with to. Not declared in a header, as in libco:
/// extern "C" void coctx_swap(coctx_t *, coctx_t *).
///
/// # Safety
/// Both are contexts; to was made by coctx_make or saved by this function.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn coctx_swap(from: *mut c_void, to: *mut c_void) {
    arch::other_name!(arch::coctx::swap)
}
